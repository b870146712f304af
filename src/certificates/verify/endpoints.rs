//! The ready endpoints of Services, each of them a Pod of the namespace: whatever else somebody writes into an EndpointSlice is not dialed.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use k8s_openapi::api::{
    core::v1::{Service, ServicePort},
    discovery::v1::EndpointSlice,
};
use kube::{Api, Client, ResourceExt, api::ListParams};

use super::Networks;
use crate::{
    cluster::error::message,
    inventory::{Inventory, template::Source},
};

/// The label of an EndpointSlice that names its Service.
const SERVICE: &str = "kubernetes.io/service-name";
/// A Service with more endpoints than all of these slices have (100 each) is asked for no more of them.
const MOST_SLICES: u32 = 500;
/// Ports whose number says TLS, where neither their appProtocol nor their name does: HTTPS, SMTPS, LDAPS, DNS over TLS, IMAPS, POP3S, Kubernetes.
const TLS_PORTS: &[i32] = &[443, 8443, 9443, 465, 636, 853, 993, 995, 6443];

/// One server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Where it listens.
    pub address: SocketAddr,
    /// For people.
    pub described: String,
}

/// Reads the Services of one namespace.
pub struct Reader<'a> {
    pub client: &'a Client,
    pub inventory: &'a Inventory,
    pub namespace: &'a str,
    /// Nodes' own addresses are dialed only within these.
    pub networks: &'a Networks,
}

impl Reader<'_> {
    /// The ready endpoints of port `port` of the Service `name`.
    pub async fn of_service(&self, name: &str, port: u16) -> Result<Vec<Endpoint>, String> {
        let service = self.service(name).await?.ok_or_else(|| format!("there is no Service {name}"))?;
        let ports = service.spec.unwrap_or_default().ports.unwrap_or_default();
        let known = ports
            .iter()
            .filter(|known| is_tcp(known.protocol.as_deref()))
            .find(|known| known.port == i32::from(port))
            .ok_or_else(|| format!("Service {name} has no TCP port {port}"))?;
        let slices = self.slices(ListParams::default().labels(&format!("{SERVICE}={name}"))).await?;
        let endpoints: BTreeSet<_> = slices.iter().flat_map(|slice| self.of_slice(slice, known)).collect();
        some(endpoints).ok_or_else(|| format!("Service {name} has no ready Pod on port {port}"))
    }

    /// The ready endpoints with TLS of all Services that lead to a Pod that uses the Secret.
    pub async fn discover(&self, secret: &str) -> Result<Vec<Endpoint>, String> {
        let consumers = self.inventory.consumers(self.namespace, &Source::Secret(secret.into()));
        let pods: BTreeSet<&str> = consumers.iter().flat_map(|consumer| &consumer.pods).map(|(name, _)| &**name).collect();
        let slices = self.slices(ListParams::default()).await?;
        let leads =
            |slice: &&EndpointSlice| slice.endpoints.iter().flatten().any(|endpoint| pod(endpoint).is_some_and(|pod| pods.contains(pod)));
        let names: BTreeSet<&String> = slices.iter().filter(leads).filter_map(|slice| slice.labels().get(SERVICE)).collect();
        let mut endpoints = BTreeSet::new();
        for name in names {
            let Some(service) = self.service(name).await? else { continue };
            for port in service
                .spec
                .unwrap_or_default()
                .ports
                .unwrap_or_default()
                .iter()
                .filter(|port| is_tcp(port.protocol.as_deref()) && is_tls(port))
            {
                let of_service = slices.iter().filter(|slice| slice.labels().get(SERVICE) == Some(name));
                let found = of_service.flat_map(|slice| self.of_slice(slice, port));
                endpoints.extend(found.filter(|(_, _, pod)| pods.contains(pod.as_str())));
            }
        }
        some(endpoints).ok_or_else(|| "no Service leads to a ready Pod that uses the Secret on a TLS port (appProtocol or name https or tls, or 443, 8443, ...); name one under verify.tls".into())
    }

    async fn service(&self, name: &str) -> Result<Option<Service>, String> {
        let api: Api<Service> = Api::namespaced(self.client.clone(), self.namespace);
        api.get_opt(name).await.map_err(|error| format!("Service {name} cannot be read: {}", message(&error)))
    }

    async fn slices(&self, params: ListParams) -> Result<Vec<EndpointSlice>, String> {
        let api: Api<EndpointSlice> = Api::namespaced(self.client.clone(), self.namespace);
        let list = api.list(&params.limit(MOST_SLICES)).await;
        Ok(list.map_err(|error| format!("EndpointSlices cannot be listed: {}", message(&error)))?.items)
    }

    /// Address, port and Pod of the ready endpoints for `port`.
    fn of_slice(&self, slice: &EndpointSlice, port: &ServicePort) -> Vec<(IpAddr, u16, String)> {
        let wanted = port.name.as_deref().unwrap_or_default();
        let of_port = slice
            .ports
            .iter()
            .flatten()
            .filter(|known| is_tcp(known.protocol.as_deref()))
            .find(|known| known.name.as_deref().unwrap_or_default() == wanted);
        let Some(number) = of_port.and_then(|port| u16::try_from(port.port?).ok()) else { return Vec::new() };
        let ready = slice.endpoints.iter().flatten().filter(|endpoint| {
            let ready = endpoint.conditions.as_ref().and_then(|conditions| conditions.ready);
            ready.unwrap_or(true) // "nil should be interpreted as true"
        });
        ready
            .filter_map(|endpoint| {
                let name = pod(endpoint)?;
                // One that has ended may have an address that is another's by now; one on its node's network has all ports of the node.
                let own = self.inventory.pod(self.namespace, name).filter(|own| !own.over && own.ready)?;
                let addresses = endpoint.addresses.iter().filter_map(|text| text.parse().ok());
                let mut addresses = addresses.filter(|address| !own.host_network || self.networks.contains(*address));
                let address = addresses.find(|address| own.addresses.contains(address))?;
                Some((address, number, name.to_owned()))
            })
            .collect()
    }
}

fn pod(endpoint: &k8s_openapi::api::discovery::v1::Endpoint) -> Option<&str> {
    let target = endpoint.target_ref.as_ref().filter(|target| target.kind.as_deref() == Some("Pod"))?;
    target.name.as_deref()
}

fn is_tcp(protocol: Option<&str>) -> bool {
    protocol.is_none_or(|protocol| protocol == "TCP")
}

fn is_tls(port: &ServicePort) -> bool {
    let said = port.app_protocol.as_deref().or(port.name.as_deref()).unwrap_or_default();
    let says = said.rsplit('/').next().unwrap_or_default().split('-').any(|word| ["https", "tls", "wss", "grpcs"].contains(&word));
    says || (port.app_protocol.is_none() && TLS_PORTS.contains(&port.port))
}

fn some(endpoints: BTreeSet<(IpAddr, u16, String)>) -> Option<Vec<Endpoint>> {
    let endpoint = |(address, port, pod): (IpAddr, u16, String)| {
        let address = SocketAddr::new(address, port);
        Endpoint { address, described: format!("Pod {pod} ({address})") }
    };
    (!endpoints.is_empty()).then(|| endpoints.into_iter().map(endpoint).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_ports_speak_tls() {
        for (name, protocol, port, tls) in [
            (None, None, 443, true),
            (Some("web"), None, 8443, true),
            (Some("https"), None, 1, true),
            (Some("grpc-tls"), None, 1, true),
            (Some("http"), None, 80, false),
            (None, Some("https"), 1, true),
            (None, Some("kubernetes.io/wss"), 1, true),
            (Some("https"), Some("http"), 443, false),
            (Some("metrics"), None, 9090, false),
        ] {
            let port =
                ServicePort { name: name.map(str::to_owned), app_protocol: protocol.map(str::to_owned), port, ..ServicePort::default() };
            assert_eq!(is_tls(&port), tls, "{port:?}");
        }
    }
}
