//! TLS for servers that do not speak it.

use std::{net::SocketAddr, sync::Arc};

use tokio::net::{TcpListener, TcpStream};

/// Where the proxy for workload identity of an OKE cluster listens, at addresses that nothing else is likely to use: one for each test.
pub const WORKLOAD_PROXIES: [&str; 2] = ["127.0.12.250:12250", "127.0.12.251:12250"];

/// For a server at 127.0.0.1 or one of the [`WORKLOAD_PROXIES`], and the certificate to trust in PEM.
pub fn tls() -> (tokio_rustls::TlsAcceptor, String) {
    seaworthy::install_crypto_provider();
    let certified = rcgen::generate_simple_self_signed(["127.0.0.1", "127.0.12.250", "127.0.12.251"].map(ToOwned::to_owned)).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
    let tls = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certified.cert.der().clone()], key).unwrap();
    (tokio_rustls::TlsAcceptor::from(Arc::new(tls)), certified.cert.pem())
}

/// Speaks TLS at `listen` for a server that does not; where it listens, and the certificate to trust in PEM.
pub async fn terminate(listen: &str, server: &str) -> (SocketAddr, String) {
    let ((tls, certificate), server) = (tls(), server.trim_start_matches("http://").to_owned());
    let listener = TcpListener::bind(listen).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (tls, server) = (tls.clone(), server.clone());
            tokio::spawn(async move {
                let (mut stream, mut server) = (tls.accept(stream).await?, TcpStream::connect(server).await?);
                tokio::io::copy_bidirectional(&mut stream, &mut server).await
            });
        }
    });
    (address, certificate)
}
