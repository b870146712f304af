//! How a pair stands in a Secret. No I/O.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use zeroize::Zeroizing;

use super::{decide::Pair, issuer::SecretData, request::Issued, x509::Certificate};
use crate::{
    api::certificate_rotation::CertificateRotationSpec,
    keys::{Key, KeyError},
};

/// The leaf and what leads to the root.
pub const CERTIFICATE: &str = "tls.crt";
/// The private key.
pub const KEY: &str = "tls.key";
/// What to trust.
pub const CA: &str = "ca.crt";

/// A pair as it is stored, with the roots.
#[derive(Debug)]
pub struct Material {
    /// Leaf, then intermediates.
    pub chain: Vec<Certificate>,
    /// The key.
    pub key: Key,
    /// The roots, as PEM.
    pub roots: String,
}

impl Material {
    /// Of what an issuer returned.
    pub fn new(issued: Issued, key: Key) -> Self {
        let mut material = Self { chain: Vec::new(), key, roots: String::new() };
        material.surround(issued);
        material
    }

    /// With the same key, and this leaf, chain and roots.
    pub fn surround(&mut self, issued: Issued) {
        self.roots = issued.roots.iter().map(Certificate::to_pem).collect();
        self.chain = std::iter::once(issued.leaf).chain(issued.intermediates).collect();
    }

    /// Of what is stored. Only after [`read`] has said that it is good.
    pub fn stored(data: &SecretData) -> Option<Self> {
        let chain = Certificate::chain(data.get(CERTIFICATE)?).ok()?;
        let key = Key::from_pem(data.get(KEY)?).ok()?;
        let roots = data.get(CA).and_then(|pem| String::from_utf8(pem.to_vec()).ok()).unwrap_or_default();
        Some(Self { chain, key, roots })
    }

    /// All keys of the Secret that `spec` asks for.
    pub fn render(&self, spec: &CertificateRotationSpec) -> Result<SecretData, KeyError> {
        let chain: String = self.chain.iter().map(Certificate::to_pem).collect();
        let key = self.key.to_pem(spec.private_key.encoding)?;
        let bytes = |text: &str| Zeroizing::new(text.as_bytes().to_vec());
        let mut data: SecretData = [(CERTIFICATE, bytes(&chain)), (KEY, bytes(&key)), (CA, bytes(&self.roots))]
            .map(|(name, value)| (name.to_owned(), value))
            .into();
        let Some(outputs) = &spec.outputs else { return Ok(data) };
        if let Some(combined) = &outputs.combined_pem {
            let both = Zeroizing::new([key.as_bytes(), chain.as_bytes()].concat());
            data.insert(combined.key.clone(), both);
        }
        if let Some(files) = &outputs.files {
            for (name, value) in
                [(&files.certificate, chain.as_str()), (&files.private_key, key.as_str()), (&files.ca, self.roots.as_str())]
            {
                if let Some(name) = name {
                    data.insert(name.clone(), bytes(value));
                }
            }
        }
        Ok(data)
    }
}

/// What pair the data of a Secret holds.
pub fn read(data: &SecretData) -> Pair {
    let empty = |key: &str| data.get(key).is_none_or(|value| value.is_empty());
    if empty(CERTIFICATE) && empty(KEY) {
        return Pair::Missing;
    }
    let none = Zeroizing::new(Vec::new());
    let get = |key: &str| data.get(key).unwrap_or(&none);
    let mut chain = match Certificate::chain(get(CERTIFICATE)) {
        Ok(chain) => chain,
        Err(error) => return Pair::Unreadable(format!("{CERTIFICATE}: {error}")),
    };
    let key = match Key::from_pem(get(KEY)) {
        Ok(key) => key,
        Err(error) => return Pair::Unreadable(format!("{KEY}: {error}")),
    };
    let leaf = chain.remove(0);
    if leaf.public_key == key.public_key() { Pair::Good(Box::new(leaf), chain) } else { Pair::Mismatch }
}

/// Into the form that the API takes. The copy is overwritten by whoever sends it.
pub fn to_api(data: &SecretData) -> BTreeMap<String, ByteString> {
    data.iter().map(|(key, value)| (key.clone(), ByteString(value.to_vec()))).collect()
}
