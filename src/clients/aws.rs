//! The HTTP client of AWS's SDK: it leads where every address leads that a tenant may write, and reads no more than is needed.

use aws_smithy_http_client::{
    Builder,
    tls::{self, rustls_provider::CryptoMode},
};
use aws_smithy_runtime_api::{
    client::{
        dns::{DnsFuture, ResolveDns, ResolveDnsError},
        http::{HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient, SharedHttpConnector},
        orchestrator::HttpRequest,
        runtime_components::RuntimeComponents,
    },
    shared::IntoShared,
};
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use http_body::Frame;
use http_body_util::{BodyDataStream, Limited, StreamBody};

use super::egress::Egress;

/// No answer is longer: twenty values of 64 KiB, or a page of a list, escaped as JSON.
const MAX_BODY_BYTES: usize = 8 * 1024 * 1024;
/// And holds no more: a page of a list has a hundred entries, each with fifty tags at most.
const MOST_OBJECTS: usize = 20_000;

/// Resolves names as for every address that a tenant may write.
#[derive(Clone, Debug)]
struct Checked(Egress);

impl ResolveDns for Checked {
    fn resolve_dns<'a>(&'a self, name: &'a str) -> DnsFuture<'a> {
        DnsFuture::new(async move {
            let found = self.0.resolve(name).await.map_err(ResolveDnsError::new)?;
            Ok(found.into_iter().map(|address| address.ip()).collect())
        })
    }
}

/// Goes where `egress` lets it.
pub fn http(egress: &Egress) -> SharedHttpClient {
    Bounded(Builder::new().tls_provider(tls::Provider::Rustls(CryptoMode::AwsLc)).build_with_resolver(Checked(egress.clone())))
        .into_shared()
}

/// Reads no more of an answer than [`MAX_BODY_BYTES`]; the SDK has no limit of its own.
#[derive(Clone, Debug)]
struct Bounded<T>(T);

impl HttpClient for Bounded<SharedHttpClient> {
    fn http_connector(&self, settings: &HttpConnectorSettings, components: &RuntimeComponents) -> SharedHttpConnector {
        Bounded(self.0.http_connector(settings, components)).into_shared()
    }
}

/// As much of an answer, and as many objects in it: each takes hundreds of times its room in memory.
fn limited(body: SdkBody) -> impl Stream<Item = Result<Frame<Bytes>, Box<dyn std::error::Error + Send + Sync>>> + Send + Sync + 'static {
    let mut objects = Objects::default();
    BodyDataStream::new(Limited::new(body, MAX_BODY_BYTES)).map(move |chunk| {
        let chunk = chunk?;
        objects.count(&chunk);
        if objects.number > MOST_OBJECTS { Err("the answer holds too many objects".into()) } else { Ok(Frame::data(chunk)) }
    })
}

/// The objects in JSON that comes in chunks; the braces in texts, which values may be full of, begin none.
#[derive(Default)]
struct Objects {
    number: usize,
    in_text: bool,
    escaped: bool,
}

impl Objects {
    fn count(&mut self, chunk: &[u8]) {
        for byte in chunk {
            match byte {
                _ if std::mem::take(&mut self.escaped) => {}
                b'\\' => self.escaped = self.in_text,
                b'"' => self.in_text = !self.in_text,
                b'{' if !self.in_text => self.number += 1,
                _ => {}
            }
        }
    }
}

impl HttpConnector for Bounded<SharedHttpConnector> {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let call = self.0.call(request);
        HttpConnectorFuture::new(async { Ok(call.await?.map(|body| SdkBody::from_body_1_x(StreamBody::new(limited(body))))) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn braces_in_texts_are_no_objects() {
        let answer = br#"{"a": [{}, {"b": "{{\"{{\\"}, "{\\\"{"], "c": {}}"#;
        for size in 1..answer.len() {
            let mut objects = Objects::default();
            answer.chunks(size).for_each(|chunk| objects.count(chunk));
            assert_eq!(objects.number, 4, "in chunks of {size}");
        }
    }
}
