//! What `verify.tls.address` means, and where it may lead. Pure.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::api::{certificate_rotation::CertificateRotationSpec, verify::VerifyTls};

/// Where to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A Service of the resource's own namespace.
    Service {
        /// Its name.
        name: String,
        /// Of its ports.
        port: u16,
    },
    /// Anything else.
    Host {
        /// A name or an IP address.
        host: String,
        /// TCP
        port: u16,
    },
}

impl Target {
    /// Reads `HOST:PORT` for a resource in `namespace`. Services have names as the cluster's DNS has them: NAME, NAME.NAMESPACE, NAME.NAMESPACE.svc
    /// and that with the cluster's domain behind it.
    pub fn parse(address: &str, namespace: &str) -> Result<Self, String> {
        let parsed = address.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok().filter(|port| *port > 0)?)));
        let (host, port) = parsed.ok_or_else(|| format!("verify.tls.address {address:?} is not HOST:PORT"))?;
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let labels: Vec<&str> = host.split('.').collect();
        let own = match labels.as_slice() {
            _ if host.parse::<IpAddr>().is_ok() => false,
            [_] => true,
            [_, there] | [_, there, "svc", ..] => *there == namespace,
            _ => false,
        };
        Ok(if own { Self::Service { name: labels[0].into(), port } } else { Self::Host { host, port } })
    }
}

/// The networks that addresses may lie in beside the namespace's own Pods: the operator's settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(Vec<IpNet>);

impl Networks {
    /// Of these.
    pub fn new(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }

    /// None are allowed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `address` lies in one of them.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address.to_canonical()))
    }
}

/// The name to ask for.
pub fn server_name(spec: &CertificateRotationSpec, tls: Option<&VerifyTls>) -> String {
    let host = tls.and_then(|tls| tls.address.rsplit_once(':')).map(|(host, _)| host);
    let named = tls.and_then(|tls| tls.server_name.clone());
    let own = host.filter(|host| spec.dns_names.iter().any(|name| name.eq_ignore_ascii_case(host))).map(str::to_owned);
    // A server that has the certificate for *.example is asked for some name below it.
    let first = spec.dns_names.iter().find(|name| !name.starts_with('*')).cloned();
    let below = spec.dns_names.first().and_then(|name| Some(format!("seaworthy.{}", name.strip_prefix("*.")?)));
    let address = spec.ip_addresses.first().cloned();
    named.or(own).or(first).or(below).or(address).or(host.map(str::to_owned)).unwrap_or_else(|| spec.common_name.clone())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::testing::issuer_contract;

    #[test]
    fn only_names_of_the_own_namespace_are_services() {
        let service = |name: &str| Ok(Target::Service { name: name.into(), port: 443 });
        let host = |host: &str| Ok(Target::Host { host: host.into(), port: 443 });
        for (address, target) in [
            ("api:443", service("api")),
            ("API.shop:443", service("api")),
            ("api.shop.svc:443", service("api")),
            ("api.shop.svc.cluster.local:443", service("api")),
            ("api.shop.svc.cluster.local.:443", service("api")),
            ("api.other.svc:443", host("api.other.svc")),
            ("api.other:443", host("api.other")),
            ("api.shop.example.com:443", host("api.shop.example.com")),
            ("shop:443", service("shop")),
            ("10.0.0.1:443", host("10.0.0.1")),
            ("169.254.169.254:443", host("169.254.169.254")),
        ] {
            assert_eq!(Target::parse(address, "shop"), target, "{address}");
        }
        for address in ["api", "api:", "api:0", "api:65536", ""] {
            assert!(Target::parse(address, "shop").unwrap_err().contains("HOST:PORT"), "{address}");
        }
    }

    #[test]
    fn networks_see_through_mapped_addresses() {
        let networks = Networks::new(vec!["10.0.0.0/8".parse().unwrap()]);
        for (address, within) in [("10.1.2.3", true), ("::ffff:10.1.2.3", true), ("11.0.0.1", false), ("::1", false)] {
            assert_eq!(networks.contains(address.parse().unwrap()), within, "{address}");
        }
        assert!(Networks::default().is_empty() && !Networks::default().contains("10.0.0.1".parse().unwrap()));
    }

    #[test]
    fn the_name_to_ask_for() {
        let mut spec = issuer_contract::spec("a.example");
        let tls = |address: &str, server_name: Option<&str>| {
            let tls = serde_json::json!({"address": address, "serverName": server_name});
            serde_json::from_value::<VerifyTls>(tls).unwrap()
        };
        assert_eq!(server_name(&spec, None), "a.example");
        assert_eq!(server_name(&spec, Some(&tls("api.shop.svc:443", None))), "a.example");
        assert_eq!(server_name(&spec, Some(&tls("api.shop.svc:443", Some("b.example")))), "b.example");
        spec.dns_names = vec!["*.example".into(), "api.shop.svc".into()];
        assert_eq!(server_name(&spec, Some(&tls("api.shop.svc:443", None))), "api.shop.svc");
        spec.dns_names.truncate(1);
        assert_eq!(server_name(&spec, Some(&tls("api.shop.svc:443", None))), "seaworthy.example");
        spec.dns_names.clear();
        assert_eq!(server_name(&spec, Some(&tls("api:443", None))), "api");
    }
}
