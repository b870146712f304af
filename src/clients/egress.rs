//! Where outside calls may go. An address that a tenant wrote leads to no place that only the operator can reach: its own loopback, the node's
//! metadata service. No call follows a redirect, uses a proxy, or reads more than is asked for.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;
use reqwest::{
    Client, ClientBuilder, Response, Url,
    dns::{Addrs, Name, Resolve, Resolving},
    redirect::Policy,
};
use zeroize::Zeroizing;

use super::error::ClientError;

/// Time for a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// Time for all of a call.
const WHOLE: Duration = Duration::from_secs(20);

/// Networks that tenants' addresses may lead to although they are refused otherwise.
#[derive(Clone, Debug, Default)]
pub struct Egress {
    allowed: Arc<[IpNet]>,
    anywhere: bool,
    names: Arc<HashMap<String, SocketAddr>>,
}

impl Egress {
    /// For addresses that tenants wrote.
    pub fn of_tenants(allowed: Vec<IpNet>) -> Self {
        Self { allowed: allowed.into(), ..Self::default() }
    }

    /// Names that lead to these addresses whatever a resolver would say, as in `/etc/hosts`. A port counts where the address that has the name has none.
    #[must_use]
    pub fn with_names(self, names: HashMap<String, SocketAddr>) -> Self {
        Self { names: names.into(), ..self }
    }

    /// For addresses that stand in cluster-scoped resources, which only administrators write.
    #[must_use]
    pub fn of_administrators(&self) -> Self {
        Self { anywhere: true, ..self.clone() }
    }

    /// Whether a connection to `address` is allowed.
    pub fn allows(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.anywhere || self.allowed.iter().any(|network| network.contains(&address)) || !is_special(address)
    }

    /// Refuses an address that is written as numbers, which no resolver is asked for. The error is for people.
    pub fn check_literal(&self, server: &Url) -> Result<(), String> {
        let literal = server.host_str().map(|host| host.trim_start_matches('[').trim_end_matches(']')).and_then(|host| host.parse().ok());
        if literal.is_some_and(|address| !self.allows(address)) {
            return Err(refused(server.host_str().unwrap_or_default()));
        }
        Ok(())
    }

    /// What a name leads to, as far as that is allowed.
    pub async fn resolve(&self, name: &str) -> std::io::Result<Vec<SocketAddr>> {
        let found: Vec<SocketAddr> = match self.names.get(name) {
            Some(address) => vec![*address],
            None => tokio::net::lookup_host((name, 0)).await?.collect(),
        };
        let allowed: Vec<SocketAddr> = found.iter().copied().filter(|address| self.allows(address.ip())).collect();
        if allowed.is_empty() && !found.is_empty() {
            return Err(std::io::Error::other(refused(name)));
        }
        Ok(allowed)
    }

    /// A client for `server` that keeps to this. The error is for people.
    pub fn client(&self, server: &Url, configure: impl FnOnce(ClientBuilder) -> ClientBuilder) -> Result<Client, String> {
        self.check_literal(server)?;
        let builder = Client::builder()
            .redirect(Policy::none())
            .no_proxy()
            .connect_timeout(CONNECT)
            .timeout(WHOLE)
            .user_agent(concat!("seaworthy/", env!("CARGO_PKG_VERSION")))
            .dns_resolver(Arc::new(Checked(self.clone())));
        configure(builder).build().map_err(|error| format!("no connection can be made ready: {}", chain(&error)))
    }
}

fn refused(host: &str) -> String {
    format!("{host} leads to a loopback, link-local or otherwise special address, which is refused; --store-networks allows more")
}

/// What reaches the machine itself, its link, or nobody in particular: RFC 6890, and the metadata services of clouds.
fn is_special(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            address.is_loopback()
                || address.is_link_local()
                || address.is_unspecified()
                || address.is_multicast()
                || address.is_broadcast()
                || address.octets()[0] == 0
                // What clouds serve to their machines outside 169.254.0.0/16: Alibaba, Oracle, Azure.
                || [[100, 100, 100, 200], [192, 0, 0, 192], [168, 63, 129, 16]].contains(&address.octets())
        }
        IpAddr::V6(address) => {
            address.is_loopback()
                || address.is_unspecified()
                || address.is_multicast()
                || address.is_unicast_link_local()
                || METADATA_V6.contains(&[address.segments()[0], address.segments()[1]])
                // Where in it the IPv4 address stands is up to who uses it (RFC 8215).
                || address.segments().starts_with(&[0x64, 0xff9b, 1])
                || embedded(address).is_some_and(|address| is_special(IpAddr::V4(address)))
        }
    }
}

/// Where clouds serve metadata to their machines over IPv6, as the first 32 bits: AWS, Google, Scaleway, Oracle, Akamai (Linode), Alibaba.
const METADATA_V6: [[u16; 2]; 6] =
    [[0xfd00, 0x0ec2], [0xfd20, 0x00ce], [0xfd00, 0x0042], [0xfd00, 0x00c1], [0xfd00, 0xa9fe], [0xfd00, 0x0100]];

/// The IPv4 address that a gateway takes out of an IPv6 one: NAT64 (RFC 6052), 6to4 (RFC 3056), IPv4-compatible.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let bytes = address.octets();
    let at = |place: usize| <[u8; 4]>::try_from(bytes.get(place..place + 4)?).ok().map(Ipv4Addr::from);
    match address.segments() {
        [0x64, 0xff9b, ..] | [0, 0, 0, 0, 0 | 0xffff, 0, ..] => at(12),
        [0x2002, ..] => at(2),
        _ => None,
    }
}

/// Resolves names, and leaves out what is refused: what a name leads to is judged at the very moment at which it is used.
struct Checked(Egress);

impl Resolve for Checked {
    fn resolve(&self, name: Name) -> Resolving {
        let egress = self.0.clone();
        Box::pin(async move {
            let allowed = egress.resolve(name.as_str()).await?;
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

/// Reads at most `most` bytes of an answer. A longer one says nothing about whether `named` is well.
pub async fn body(mut response: Response, named: &str, most: usize) -> Result<Zeroizing<Vec<u8>>, ClientError> {
    let mut body = Zeroizing::new(Vec::new());
    let broken = |error| ClientError::Unavailable(format!("{named}: {}", chain(&error)));
    while let Some(chunk) = response.chunk().await.map_err(broken)? {
        if body.len() + chunk.len() > most {
            return Err(ClientError::Invalid(format!("{named}: the answer is longer than {most} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// An error with its causes. Addresses stay out of it: a path may name what nobody else is to know.
pub fn chain(error: &reqwest::Error) -> String {
    let mut text = if error.is_timeout() { "it took too long".to_owned() } else { String::new() };
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        let said = next.to_string();
        if !text.contains(&said) {
            text = if text.is_empty() { said } else { format!("{text}: {said}") };
        }
        cause = next.source();
    }
    match text.as_str() {
        "" => "it could not be sent".into(),
        // What rustls says of an answer that is none of TLS.
        said if said.contains("InvalidContentType") => format!("{said}; it does not answer in TLS: is its address http://?"),
        said if said.contains("UnknownIssuer") => format!("{said}; name the CA that signs it (caBundle, caSecretRef)"),
        said if said.contains("CaUsedAsEndEntity") => format!("{said}; its certificate is that of a CA, and cannot be a server's"),
        _ => text,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn what_tenants_may_not_reach() {
        let tenants = Egress::of_tenants(vec!["127.0.0.2/32".parse().unwrap()]);
        for (address, allowed) in [
            ("127.0.0.1", false),
            ("127.0.0.2", true),
            ("::1", false),
            ("::ffff:127.0.0.1", false),
            ("169.254.169.254", false),
            ("::ffff:169.254.169.254", false),
            ("fe80::1", false),
            ("fd00:ec2::254", false),
            ("100.100.100.200", false),
            ("192.0.0.192", false),
            ("168.63.129.16", false),
            ("64:ff9b::a9fe:a9fe", false),
            ("64:ff9b::8.8.8.8", true),
            ("2002:7f00:1::1", false),
            ("::127.0.0.1", false),
            ("fd20:ce::254", false),
            ("fd00:42::42", false),
            ("fd00:c1::a9fe:a9fe", false),
            ("fd00:a9fe:a9fe::1", false),
            ("fd00:100::100:200", false),
            ("::ffff:0:127.0.0.1", false),
            ("64:ff9b:1::a9fe:a9fe", false),
            ("0.0.0.0", false),
            ("::", false),
            ("224.0.0.1", false),
            ("10.0.0.1", true),
            ("192.168.1.1", true),
            ("fd12::1", true),
            ("1.1.1.1", true),
            ("2001:db8::1", true),
        ] {
            assert_eq!(tenants.allows(address.parse().unwrap()), allowed, "{address}");
            assert!(tenants.of_administrators().allows(address.parse().unwrap()));
        }
    }

    #[tokio::test]
    async fn a_name_is_judged_by_what_it_leads_to() {
        crate::install_crypto_provider();
        let tenants = Egress::default();
        for url in ["http://127.0.0.1:1/", "http://[::1]:1/", "http://2130706433:1/", "http://0x7f.1:1/"] {
            let error = tenants.client(&url.parse().unwrap(), |builder| builder).unwrap_err();
            assert!(error.contains("is refused"), "{url}: {error}");
        }
        let url: Url = "http://localhost:1/".parse().unwrap();
        let client = tenants.client(&url, |builder| builder).unwrap();
        let error = client.get(url).send().await.unwrap_err();
        assert!(chain(&error).contains("is refused"), "{}", chain(&error));
    }

    #[tokio::test]
    async fn an_address_without_tls_is_told() {
        crate::install_crypto_provider();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url: Url = format!("https://{}/", listener.local_addr().unwrap()).parse().unwrap();
        let server = tokio::spawn(async move { axum::serve(listener, axum::Router::new()).await });
        let administrators = Egress::default().of_administrators();
        let error = administrators.client(&url, |builder| builder).unwrap().get(url).send().await.unwrap_err();
        assert!(chain(&error).ends_with("is its address http://?"), "{}", chain(&error));
        server.abort();
    }
}
