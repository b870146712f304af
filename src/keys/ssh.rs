//! Keys in the form of OpenSSH: Ed25519 and RSA.

use ssh_key::{
    LineEnding, Mpint, PrivateKey,
    private::{Ed25519Keypair, Ed25519PrivateKey, KeypairData, RsaKeypair, RsaPrivateKey},
    public::{Ed25519PublicKey, RsaPublicKey},
};
use zeroize::Zeroizing;

use super::{
    Key, KeyError, MAX_PEM_BYTES,
    parts::{Parts, Rsa},
};

/// `-----BEGIN OPENSSH PRIVATE KEY-----`, without a passphrase.
pub fn private(key: &Key, comment: &str) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let data = match key.parts()? {
        Parts::Ed25519 { x, d } => {
            KeypairData::Ed25519(Ed25519Keypair { public: Ed25519PublicKey(x), private: Ed25519PrivateKey::from_bytes(&d) })
        }
        Parts::Rsa(rsa) => rsa_data(&rsa).map_err(|_| KeyError::Unsupported)?,
        Parts::Ecdsa { .. } => return Err(KeyError::Unsupported),
    };
    let key = PrivateKey::new(data, comment).map_err(|_| KeyError::Unsupported)?;
    let text = key.to_openssh(LineEnding::LF).map_err(|_| KeyError::Unsupported)?;
    Ok(Zeroizing::new(text.as_bytes().to_vec()))
}

fn rsa_data(rsa: &Rsa) -> Result<KeypairData, ssh_key::Error> {
    let number = |bytes: &[u8]| Mpint::from_positive_bytes(bytes);
    let public = RsaPublicKey { e: number(&rsa.e)?, n: number(&rsa.n)? };
    let private = RsaPrivateKey { d: number(&rsa.d)?, iqmp: number(&rsa.qi)?, p: number(&rsa.p)?, q: number(&rsa.q)? };
    Ok(KeypairData::Rsa(RsaKeypair { public, private }))
}

/// The line of `authorized_keys` that belongs to a private key.
pub fn public(private: &[u8]) -> Result<String, KeyError> {
    if private.len() > MAX_PEM_BYTES {
        return Err(KeyError::TooLarge);
    }
    let key = PrivateKey::from_openssh(private).map_err(|_| KeyError::NotOpenSsh)?;
    key.public_key().to_openssh().map(|line| format!("{line}\n")).map_err(|_| KeyError::NotOpenSsh)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::api::x509::{Algorithm, PrivateKey as Spec};

    fn key(algorithm: Algorithm, size: Option<i32>) -> Key {
        Key::generate(&Spec { algorithm, size, ..Spec::default() }).unwrap()
    }

    #[test]
    fn a_private_key_and_the_line_that_belongs_to_it() {
        for (algorithm, size, begins) in [(Algorithm::Ed25519, None, "ssh-ed25519 AAAA"), (Algorithm::Rsa, Some(3072), "ssh-rsa AAAA")] {
            let text = private(&key(algorithm, size), "deploy@example").unwrap();
            assert!(text.starts_with(b"-----BEGIN OPENSSH PRIVATE KEY-----\n") && text.ends_with(b"-----END OPENSSH PRIVATE KEY-----\n"));
            let line = public(&text).unwrap();
            assert!(line.starts_with(begins) && line.ends_with(" deploy@example\n"), "{line}");
        }
        assert_eq!(private(&key(Algorithm::Ecdsa, None), "").unwrap_err(), KeyError::Unsupported);
    }

    #[test]
    fn no_input_makes_it_panic() {
        let valid = private(&key(Algorithm::Ed25519, None), "").unwrap();
        assert_eq!(public(b"x").unwrap_err(), KeyError::NotOpenSsh);
        bolero::check!().with_iterations(10_000).for_each(|input: &[u8]| {
            let _ = public(input);
            let mut broken = valid.to_vec();
            for (index, byte) in input.iter().enumerate() {
                let place = (index * 31 + usize::from(*byte)) % broken.len();
                broken[place] ^= byte;
            }
            let _ = public(&broken);
        });
    }
}
