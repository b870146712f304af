//! Signatures of requests to Oracle Cloud: RSA with SHA-256 over a text of chosen headers (draft-cavage-http-signatures, as Oracle's "Request
//! Signatures" fixes it). Pure.

use aws_lc_rs::{
    digest, rand,
    signature::{self, RsaKeyPair},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::Timestamp;

/// What is signed of a request.
#[derive(Clone, Copy, Debug)]
pub struct Signed<'a> {
    /// GET, POST, PUT, DELETE.
    pub method: &'a str,
    /// Path and query, as they are sent.
    pub target: &'a str,
    /// Host, and port where the address has one. None: it is not signed, as the federation service wants it.
    pub host: Option<&'a str>,
    /// [`date`].
    pub date: &'a str,
    /// JSON, empty or not; None: a request without.
    pub body: Option<&'a [u8]>,
}

/// The type of every body.
pub const CONTENT_TYPE: &str = "application/json";

/// A time as HTTP writes it.
pub fn date(now: Timestamp) -> String {
    now.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

/// The value of `x-content-sha256`.
pub fn hash(body: &[u8]) -> String {
    STANDARD.encode(digest::digest(&digest::SHA256, body))
}

impl Signed<'_> {
    /// The names of the headers, and the text that is signed.
    pub fn text(&self) -> (String, String) {
        let mut lines =
            vec![("date", self.date.to_owned()), ("(request-target)", format!("{} {}", self.method.to_ascii_lowercase(), self.target))];
        lines.extend(self.host.map(|host| ("host", host.to_owned())));
        if let Some(body) = self.body {
            lines.extend([
                ("content-length", body.len().to_string()),
                ("content-type", CONTENT_TYPE.to_owned()),
                ("x-content-sha256", hash(body)),
            ]);
        }
        let names: Vec<&str> = lines.iter().map(|(name, _)| *name).collect();
        let text: Vec<String> = lines.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        (names.join(" "), text.join("\n"))
    }

    /// The value of `Authorization`. None: the key cannot sign.
    pub fn authorization(&self, key_id: &str, key: &RsaKeyPair) -> Option<String> {
        let (names, text) = self.text();
        let mut signature = vec![0; key.public_modulus_len()];
        key.sign(&signature::RSA_PKCS1_SHA256, &rand::SystemRandom::new(), text.as_bytes(), &mut signature).ok()?;
        let signature = STANDARD.encode(signature);
        Some(format!(r#"Signature version="1",keyId="{key_id}",algorithm="rsa-sha256",headers="{names}",signature="{signature}""#))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use aws_lc_rs::signature::{RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
    use rustls::pki_types::{SubjectPublicKeyInfoDer, pem::PemObject};

    use super::*;

    /// The key of the published examples, which is that of the draft. It is too short to sign with here; that its signatures fit our text says that
    /// the text is the one that Oracle's examples sign.
    const PUBLIC: &[u8] = b"-----BEGIN PUBLIC KEY-----
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDCFENGw33yGihy92pDjZQhl0C3
6rPJj+CvfSC8+q28hxA161QFNUd13wuCTUcq0Qd2qsBe/2hFyc2DCJJg0h1L78+6
Z4UMR7EOcpfdUE9Hf3m/hs+FUR45uBJeDK1HSFHD8bHKD6kv8FPGfJTotc+2xjJw
oYi+1hqp1fIekaxsyQIDAQAB
-----END PUBLIC KEY-----
";
    const DATE: &str = "Thu, 05 Jan 2014 21:31:40 GMT";
    const HOST: &str = "iaas.us-phoenix-1.oraclecloud.com";

    fn fits(signed: &Signed<'_>, signature: &str) {
        let key = SubjectPublicKeyInfoDer::from_pem_slice(PUBLIC).unwrap();
        let key = UnparsedPublicKey::new(&RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY, key.as_ref());
        let (_, text) = signed.text();
        assert!(key.verify(text.as_bytes(), &STANDARD.decode(signature).unwrap()).is_ok(), "{text}");
    }

    #[test]
    fn the_published_examples() {
        let target = "/20160918/instances?availabilityDomain=Pjwf%3A%20PHX-AD-1&compartmentId=ocid1.compartment.oc1..aaaaaaaam3we6vgnherjq5q2idnccdflvjsnog7mlr6rtdb25gilchfeyjxa&displayName=TeamXInstances&volumeId=ocid1.volume.oc1.phx.abyhqljrgvttnlx73nmrwfaux7kcvzfs3s66izvxf2h4lgvyndsdsnoiwr5q";
        let get = Signed { method: "GET", target, host: Some(HOST), date: DATE, body: None };
        assert_eq!(get.text().0, "date (request-target) host");
        fits(
            &get,
            "GBas7grhyrhSKHP6AVIj/h5/Vp8bd/peM79H9Wv8kjoaCivujVXlpbKLjMPeDUhxkFIWtTtLBj3sUzaFj34XE6YZAHc9r2DmE4pMwOAy/kiITcZxa1oHPOeRheC0jP2dqbTll8fmTZVwKZOKHYPtrLJIJQHJjNvxFWeHQjMaR7M=",
        );

        let body = b"{\n    \"compartmentId\": \"ocid1.compartment.oc1..aaaaaaaam3we6vgnherjq5q2idnccdflvjsnog7mlr6rtdb25gilchfeyjxa\",\n    \"instanceId\": \"ocid1.instance.oc1.phx.abuw4ljrlsfiqw6vzzxb43vyypt4pkodawglp3wqxjqofakrwvou52gb6s5a\",\n    \"volumeId\": \"ocid1.volume.oc1.phx.abyhqljrgvttnlx73nmrwfaux7kcvzfs3s66izvxf2h4lgvyndsdsnoiwr5q\"\n}";
        let post = Signed { method: "POST", target: "/20160918/volumeAttachments", host: Some(HOST), date: DATE, body: Some(body) };
        assert_eq!(post.text().0, "date (request-target) host content-length content-type x-content-sha256");
        assert_eq!((body.len(), hash(body).as_str()), (316, "V9Z20UJTvkvpJ50flBzKE32+6m2zJjweHpDMX/U4Uy0="));
        fits(
            &post,
            "Mje8vIDPlwIHmD/cTDwRxE7HaAvBg16JnVcsuqaNRim23fFPgQfLoOOxae6WqKb1uPjYEl0qIdazWaBy/Ml8DRhqlocMwoSXv0fbukP8J5N80LCmzT/FFBvIvTB91XuXI3hYfP9Zt1l7S6ieVadHUfqBedWH0itrtPJBgKmrWso=",
        );
    }

    #[test]
    fn what_is_signed_can_be_verified() {
        use aws_lc_rs::{encoding::AsDer, rsa::KeySize, signature::KeyPair};
        let key = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let signed =
            Signed { method: "POST", target: "/a?b=c", host: None, date: &date("2026-01-02T03:04:05Z".parse().unwrap()), body: Some(b"") };
        let header = signed.authorization("t/u/f", &key).unwrap();
        let signature = header.split("signature=\"").nth(1).unwrap().trim_end_matches('"');
        assert!(header.starts_with(r#"Signature version="1",keyId="t/u/f",algorithm="rsa-sha256",headers="date (request-target) content-length content-type x-content-sha256""#));
        let public: aws_lc_rs::encoding::PublicKeyX509Der<'_> = key.public_key().as_der().unwrap();
        let text = "date: Fri, 02 Jan 2026 03:04:05 GMT\n(request-target): post /a?b=c\ncontent-length: 0\ncontent-type: application/json\nx-content-sha256: 47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
        UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, public.as_ref())
            .verify(text.as_bytes(), &STANDARD.decode(signature).unwrap())
            .unwrap();
    }
}
