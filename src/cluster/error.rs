//! What the API server said. Pure.

/// Whether the API server refuses what was asked, rather than being away or asking to wait.
pub fn is_refusal(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if (400..500).contains(&status.code) && status.code != 429)
}

/// The message of an error, without the structure around it: `kube::Error` shows a whole Status.
pub fn message(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if !status.message.is_empty() => status.message.clone(),
        error => error.to_string(),
    }
}
