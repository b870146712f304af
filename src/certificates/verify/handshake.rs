//! One handshake: what certificate a server gives out. Nothing is sent to it but what TLS needs.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::{
        ResolvesClientCert, Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    sign::CertifiedKey,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use crate::{api::verify::StartTls, certificates::x509::Certificate};

/// Connection and handshake together take at most so long.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// In TLS 1.3 a server refuses a client's certificate after the client has finished; it is given so long to do so.
const REFUSAL: Duration = Duration::from_millis(500);
/// What an SMTP server says before TLS, at most.
const MOST_WORDS: usize = 8 * 1024;
/// Certificates in a server's chain, at most.
const MOST_CHAIN: usize = 32;

/// How to shake hands.
pub struct Terms {
    /// The name that is asked for.
    pub server_name: ServerName<'static>,
    /// What is said before.
    pub start_tls: StartTls,
    /// Who the client is.
    pub client: Option<Arc<CertifiedKey>>,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Shown {
    /// What the server gave out: its own certificate first. Empty: it came not that far.
    pub chain: Vec<Certificate>,
    /// Why the handshake did not come to its end.
    pub failure: Option<String>,
}

/// Shakes hands with `address`. The certificate is looked at by the caller; that the server has its key is checked here.
pub async fn shake(address: SocketAddr, terms: &Terms) -> Shown {
    let client = Arc::new(Client { key: terms.client.clone(), asked: AtomicBool::default() });
    let recorder = Arc::new(Recorder { provider: aws_lc_rs::default_provider(), given: Mutex::default() });
    let end = tokio::time::timeout(HANDSHAKE_TIMEOUT, connect(address, terms, &recorder, &client)).await;
    let failure = match end {
        Ok(Ok(())) => None,
        Ok(Err(error)) if terms.client.is_none() && client.asked.load(Ordering::Relaxed) => {
            Some(format!("{error}; it asks for a client certificate: set verify.tls.clientSecretName"))
        }
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some(format!("no answer within {HANDSHAKE_TIMEOUT:?}")),
    };
    let given = std::mem::take(&mut *recorder.given.lock().unwrap_or_else(PoisonError::into_inner));
    let chain: Option<Vec<_>> = given.iter().map(|der| Certificate::from_der(der)).collect();
    let unreadable = || Some("its certificate cannot be read".to_owned());
    match chain {
        Some(chain) => Shown { chain, failure },
        None => Shown { chain: Vec::new(), failure: failure.or_else(unreadable) },
    }
}

async fn connect(address: SocketAddr, terms: &Terms, recorder: &Arc<Recorder>, client: &Arc<Client>) -> io::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    match terms.start_tls {
        StartTls::None => {}
        StartTls::Postgres => postgres(&mut stream).await?,
        StartTls::Smtp => smtp(&mut stream).await?,
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().map_err(io::Error::other)?;
    // What is given out is the question here, so that nothing is refused before it was looked at.
    let mut config = builder.dangerous().with_custom_certificate_verifier(recorder.clone()).with_client_cert_resolver(client.clone());
    config.resumption = Resumption::disabled();
    let mut stream = TlsConnector::from(Arc::new(config)).connect(terms.server_name.clone(), stream).await?;
    if client.asked.load(Ordering::Relaxed) {
        let mut byte = [0];
        if let Ok(Err(error)) = tokio::time::timeout(REFUSAL, stream.read(&mut byte)).await
            && error.kind() != io::ErrorKind::UnexpectedEof
        {
            return Err(error);
        }
    }
    let _ = stream.shutdown().await;
    Ok(())
}

/// `SSLRequest` (PostgreSQL documentation, 54.7): a length and a magic number; the answer is one byte.
async fn postgres(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(&[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f]).await?;
    match stream.read_u8().await? {
        b'S' => Ok(()),
        _ => Err(io::Error::other("the PostgreSQL server does not offer TLS")),
    }
}

/// RFC 3207: greeting, EHLO, STARTTLS.
async fn smtp(stream: &mut TcpStream) -> io::Result<()> {
    reply(stream, "220").await?;
    stream.write_all(b"EHLO seaworthy\r\n").await?;
    if !reply(stream, "250").await?.lines().any(|line| line.get(4..).is_some_and(|word| word.trim().eq_ignore_ascii_case("STARTTLS"))) {
        return Err(io::Error::other("the SMTP server does not offer STARTTLS"));
    }
    stream.write_all(b"STARTTLS\r\n").await?;
    reply(stream, "220").await.map(|_| ())
}

/// Reads a reply, of several lines perhaps, byte by byte: what comes after it is TLS already.
async fn reply(stream: &mut TcpStream, code: &str) -> io::Result<String> {
    let mut text = Vec::new();
    loop {
        let line = text.len();
        while text.last() != Some(&b'\n') || text.len() == line {
            if text.len() >= MOST_WORDS {
                return Err(io::Error::other("the SMTP server talks too much"));
            }
            text.push(stream.read_u8().await?);
        }
        match &text[line..] {
            [_, _, _, b'-', ..] => {}
            last if last.starts_with(code.as_bytes()) => return Ok(String::from_utf8_lossy(&text).into_owned()),
            _ => return Err(io::Error::other(format!("the SMTP server did not answer {code}"))),
        }
    }
}

/// Keeps the chain that a server gives out, whatever it is.
#[derive(Debug)]
struct Recorder {
    provider: CryptoProvider,
    given: Mutex<Vec<CertificateDer<'static>>>,
}

impl ServerCertVerifier for Recorder {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let all = std::iter::once(leaf).chain(others).take(MOST_CHAIN).map(|der| der.clone().into_owned());
        *self.given.lock().unwrap_or_else(PoisonError::into_inner) = all.collect();
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, leaf, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, leaf, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The client's certificate, and whether the server asked for one.
#[derive(Debug)]
struct Client {
    key: Option<Arc<CertifiedKey>>,
    asked: AtomicBool,
}

impl ResolvesClientCert for Client {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.asked.store(true, Ordering::Relaxed);
        self.key.clone()
    }

    fn has_certs(&self) -> bool {
        true // asked in any case, so that it is known whether the server wants one
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use rustls::{
        RootCertStore, ServerConfig, SupportedProtocolVersion,
        crypto::aws_lc_rs::sign::any_supported_type,
        pki_types::{PrivateKeyDer, pem::PemObject},
        server::WebPkiClientVerifier,
        version::{TLS12, TLS13},
    };
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;
    use crate::{
        api::certificate_rotation::Encoding,
        certificates::{
            request::Request,
            sign::{sign, tests::ca},
        },
        keys::Key,
        testing::issuer_contract,
    };

    struct Pair {
        leaf: Certificate,
        key: PrivateKeyDer<'static>,
    }

    impl Pair {
        fn new() -> Self {
            let spec = issuer_contract::spec("a.example");
            let key = Key::generate(&spec.private_key).unwrap();
            let leaf = sign(&Request { spec: &spec, key: &key, now: jiff::Timestamp::now() }, None).unwrap();
            let key = PrivateKeyDer::from_pem_slice(key.to_pem(Encoding::Pkcs8).unwrap().as_bytes()).unwrap();
            Self { leaf, key }
        }

        fn chain(&self) -> Vec<CertificateDer<'static>> {
            vec![CertificateDer::from(self.leaf.der().to_vec())]
        }
    }

    /// A server of one connection, which says `words` first: what is answered to each line or packet.
    async fn server(
        pair: &Pair,
        version: &'static SupportedProtocolVersion,
        wants_client: bool,
        words: &'static [&'static [u8]],
    ) -> SocketAddr {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(&[version]).unwrap();
        let builder = if wants_client {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from(ca("clients").1.der().to_vec())).unwrap();
            builder.with_client_cert_verifier(WebPkiClientVerifier::builder_with_provider(roots.into(), provider).build().unwrap())
        } else {
            builder.with_no_client_auth()
        };
        let config = builder.with_single_cert(pair.chain(), pair.key.clone_key()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            for (number, word) in words.iter().enumerate() {
                if number > 0 || word.len() == 1 {
                    let _ = stream.read(&mut [0; 256]).await;
                }
                stream.write_all(word).await.unwrap();
            }
            if let Ok(mut stream) = TlsAcceptor::from(Arc::new(config)).accept(stream).await {
                let _ = stream.read(&mut [0]).await;
            }
        });
        address
    }

    fn terms(start_tls: StartTls) -> Terms {
        Terms { server_name: ServerName::try_from("a.example").unwrap(), start_tls, client: None }
    }

    const MAIL: &[&[u8]] = &[b"220-hello\r\n220 ready\r\n", b"250-mail\r\n250-SIZE 1\r\n250 STARTTLS\r\n", b"220 go\r\n"];

    #[tokio::test]
    async fn the_certificate_is_shown_by_every_kind_of_server() {
        let pair = Pair::new();
        for (version, start_tls, words) in [
            (&TLS13, StartTls::None, &[][..]),
            (&TLS12, StartTls::None, &[]),
            (&TLS13, StartTls::Postgres, &[b"S" as &[u8]]),
            (&TLS12, StartTls::Smtp, MAIL),
        ] {
            let shown = shake(server(&pair, version, false, words).await, &terms(start_tls)).await;
            assert_eq!((shown.failure, shown.chain), (None, vec![pair.leaf.clone()]), "{version:?} {start_tls:?}");
        }
    }

    #[tokio::test]
    async fn what_fails_is_said_in_words_that_help() {
        let pair = Pair::new();
        let wanting = "clientSecretName";
        for (version, wants_client, start_tls, words, said) in [
            (&TLS13, false, StartTls::Postgres, &[b"N" as &[u8]][..], "does not offer TLS"),
            (&TLS13, false, StartTls::Smtp, &[b"220 hi\r\n", b"250 plain\r\n"], "does not offer STARTTLS"),
            (&TLS13, false, StartTls::Smtp, &[b"554 no\r\n"], "did not answer 220"),
            (&TLS13, true, StartTls::None, &[], wanting),
            (&TLS12, true, StartTls::None, &[], wanting),
        ] {
            let shown = shake(server(&pair, version, wants_client, words).await, &terms(start_tls)).await;
            assert!(shown.failure.as_ref().is_some_and(|failure| failure.contains(said)), "{said}: {shown:?}");
        }
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        assert!(shake(closed, &terms(StartTls::None)).await.failure.unwrap().contains("refused"));
        // A certificate of somebody whom the server does not know is refused, in TLS 1.3 after the handshake.
        let stranger = Pair::new();
        let key = Arc::new(CertifiedKey::new(stranger.chain(), any_supported_type(&stranger.key).unwrap()));
        let with_client = Terms { client: Some(key), ..terms(StartTls::None) };
        for version in [&TLS12, &TLS13] {
            let shown = shake(server(&pair, version, true, &[]).await, &with_client).await;
            assert!(shown.failure.is_some() && shown.chain == [pair.leaf.clone()], "{shown:?}");
        }
    }

    #[tokio::test]
    async fn who_talks_without_end_or_not_at_all_is_left() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            while stream.write_all(b"220-more\r\n").await.is_ok() {}
        });
        let shown = shake(address, &terms(StartTls::Smtp)).await;
        assert!(shown.failure.as_ref().is_some_and(|failure| failure.contains("talks too much")), "{shown:?}");
    }
}
