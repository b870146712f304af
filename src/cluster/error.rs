//! What the API server said, in one line. Pure.

/// The message of an error, without the structure around it: `kube::Error` shows a whole Status.
pub fn message(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if !status.message.is_empty() => status.message.clone(),
        error => error.to_string(),
    }
}
