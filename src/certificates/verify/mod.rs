//! Whether the stored certificate is what servers give out: the operator's own handshake with each of them.
//!
//! ```text
//!   spec.verify ─► address (pure) ─► endpoints ─► handshake with each ─► judge (pure): served, waited for, or Stalled
//! ```

mod address;
mod endpoints;
mod handshake;
mod judge;
mod turns;

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use jiff::SignedDuration;
use kube::ResourceExt;
use rustls::{
    crypto::aws_lc_rs::sign::any_supported_type,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    sign::CertifiedKey,
};
use zeroize::Zeroize;

pub use self::{
    address::Networks,
    judge::{Proof, Question, interval, judge, known},
    turns::Turns,
};
use self::{address::Target, endpoints::Endpoint, handshake::Terms};
use super::{controller::Context, issuer::SecretData, outputs, x509::Certificate};
use crate::{
    api::{
        self, CertificateRotation,
        verify::{StartTls, Verify, VerifyTls, five_minutes},
    },
    cluster::references::{NamespaceSecrets, ReadSecrets},
    ids,
    inventory::template::Source,
    schedule::jitter,
};

/// What the endpoints showed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// How many were asked.
    pub total: usize,
    /// What each of those that do not serve it showed; or, of no endpoint, why there is none.
    pub wrong: Vec<String>,
}

/// So many at a time; each ends within [`handshake::HANDSHAKE_TIMEOUT`].
const AT_A_TIME: usize = 32;
/// All of them together end within this: who asks holds a worker of the run loop.
const VERIFY_TIMEOUT: Duration = Duration::from_secs(20);
/// So long a proof holds, and up to a quarter longer; it is taken again then.
const HOLDS: SignedDuration = SignedDuration::from_hours(1);

/// Asks every endpoint for the certificate of `data`.
pub async fn see(context: &Context, rotation: &CertificateRotation, verify: &Verify, data: &SecretData) -> Seen {
    let now = context.clock.now();
    let nothing = |why: String| Seen { total: 0, wrong: vec![why] };
    let Ok(wanted) = Certificate::chain(data.get(outputs::CERTIFICATE).map_or(&[][..], |pem| pem)) else {
        return nothing("the stored certificate cannot be read".into());
    };
    let roots = Certificate::chain(data.get(outputs::CA).map_or(&[][..], |pem| pem)).unwrap_or_default();
    let endpoints = match endpoints(context, rotation, verify).await {
        Ok(endpoints) => endpoints,
        Err(why) => return nothing(why),
    };
    let terms = match terms(context, rotation, verify.tls.as_ref()).await {
        Ok(terms) => terms,
        Err(why) => return nothing(why),
    };
    let (terms, total) = (&terms, endpoints.len());
    let asked = stream::iter(endpoints).map(|endpoint| async move {
        let shown = handshake::shake(endpoint.address, terms).await;
        (endpoint, shown)
    });
    let (mut wrong, mut answered) = (Vec::new(), 0);
    let mut answers = asked.buffer_unordered(AT_A_TIME);
    let all = async {
        while let Some((endpoint, shown)) = answers.next().await {
            answered += 1;
            if let Err(what) = judge::serves(&shown, &wanted[0], &roots, now) {
                wrong.push(format!("{} {what}", endpoint.described));
            }
        }
    };
    let _ = tokio::time::timeout(VERIFY_TIMEOUT, all).await;
    wrong.sort();
    wrong.extend((answered..total).map(|_| format!("an endpoint could not be asked within {VERIFY_TIMEOUT:?}")));
    Seen { total, wrong }
}

/// What is asked about the certificate with `fingerprint`.
pub fn question(context: &Context, rotation: &CertificateRotation, verify: &Verify, fingerprint: String) -> Question {
    let secret = Source::Secret(rotation.spec.secret_name.as_str().into());
    let consumers = context.roller.inventory.consumers(&rotation.namespace().unwrap_or_default(), &secret);
    let ready = consumers.iter().flat_map(|consumer| &consumer.pods).filter(|(_, pod)| pod.ready).count();
    let timeout = verify.tls.as_ref().map_or_else(five_minutes, |tls| tls.timeout).min(api::Duration::hours(24));
    let name = address::server_name(&rotation.spec, verify.tls.as_ref());
    let holds = HOLDS + jitter(&rotation.uid().unwrap_or_default(), HOLDS / 4);
    let question = ids::hash(serde_json::to_string(&(verify, name)).unwrap_or_default().as_bytes());
    Question { fingerprint, question, consumers: i64::try_from(ready).unwrap_or(i64::MAX), timeout: timeout.signed(), holds }
}

async fn endpoints(context: &Context, rotation: &CertificateRotation, verify: &Verify) -> Result<Vec<Endpoint>, String> {
    let namespace = rotation.namespace().unwrap_or_default();
    let reader = endpoints::Reader {
        client: &context.client,
        inventory: &context.roller.inventory,
        namespace: &namespace,
        networks: &context.verify_networks,
    };
    let Some(tls) = &verify.tls else { return reader.discover(&rotation.spec.secret_name).await };
    match Target::parse(&tls.address, &namespace)? {
        Target::Service { name, port } => reader.of_service(&name, port).await,
        Target::Host { host, port } => resolve(&context.verify_networks, &host, port).await,
    }
}

/// The addresses of a host that is no Service of the namespace, if the operator's own settings allow all of them.
async fn resolve(allowed: &Networks, host: &str, port: u16) -> Result<Vec<Endpoint>, String> {
    if allowed.is_empty() {
        return Err(format!("{host} is no Service of this namespace, and the operator dials nothing else without --verify-networks"));
    }
    let found = tokio::time::timeout(handshake::HANDSHAKE_TIMEOUT, tokio::net::lookup_host((host, port))).await;
    let found =
        found.map_err(|_| format!("{host} was not resolved in time"))?.map_err(|error| format!("{host} cannot be resolved: {error}"))?;
    let mut endpoints: Vec<Endpoint> = Vec::new();
    for address in found {
        if !allowed.contains(address.ip()) {
            return Err(format!("{host} has the address {}, which is not within the operator's --verify-networks", address.ip()));
        }
        endpoints.push(Endpoint { address, described: format!("{host} ({address})") });
    }
    Ok(endpoints)
}

async fn terms(context: &Context, rotation: &CertificateRotation, tls: Option<&VerifyTls>) -> Result<Terms, String> {
    let name = address::server_name(&rotation.spec, tls);
    let server_name =
        ServerName::try_from(name.clone()).map_err(|_| format!("{name:?} is no name that TLS can ask for; set verify.tls.serverName"))?;
    let client = match tls.and_then(|tls| tls.client_secret_name.as_ref()) {
        Some(secret) => Some(client_certificate(context, &rotation.namespace().unwrap_or_default(), secret).await?),
        None => None,
    };
    Ok(Terms { server_name, start_tls: tls.map_or(StartTls::None, |tls| tls.start_tls), client })
}

async fn client_certificate(context: &Context, namespace: &str, secret: &str) -> Result<Arc<CertifiedKey>, String> {
    let data = NamespaceSecrets::new(context.client.clone(), namespace)
        .secret(secret)
        .await
        .map_err(|error| format!("verify.tls.clientSecretName: {error}"))?;
    let unfit =
        |key: &str| format!("verify.tls.clientSecretName: {key} of Secret {secret} cannot be read; it has to be of type kubernetes.io/tls");
    let chain = Certificate::chain(data.get(outputs::CERTIFICATE).map_or(&[][..], |pem| pem)).map_err(|_| unfit(outputs::CERTIFICATE))?;
    let chain = chain.iter().map(|certificate| CertificateDer::from(certificate.der().to_vec())).collect();
    let mut der = PrivateKeyDer::from_pem_slice(data.get(outputs::KEY).map_or(&[][..], |pem| pem)).map_err(|_| unfit(outputs::KEY))?;
    let key = any_supported_type(&der).map_err(|_| unfit(outputs::KEY));
    der.zeroize();
    Ok(Arc::new(CertifiedKey::new(chain, key?)))
}
