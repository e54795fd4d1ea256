//! Gets lists: by HTTP, or from a file. What is too large or too slow is given up.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::Trouble;

/// Bytes of a list: 100 000 objects of JSON fit.
const BYTES: usize = 32 << 20;
/// How long an answer may take, all of it.
const TIMEOUT: Duration = Duration::from_secs(30);

/// What came.
pub(super) enum Got {
    /// It is as it was.
    Same,
    /// The list, and what tells whether it is the same next time.
    List(Bytes, Mark),
}

/// What tells one version of a list from another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// Nothing does.
    None,
    /// Answer to `If-None-Match`.
    ETag(HeaderValue),
    /// Device, inode, length, time of the last change.
    File(u64, u64, u64, i64, i64),
}

/// Asks by HTTP.
pub(super) struct Http {
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
}

impl Http {
    /// For URLs like this one: of the system's certificates one must vouch for an `https` server.
    pub(super) fn new(url: &str) -> Result<Self, Trouble> {
        let none = || Some(rustls::RootCertStore::empty());
        let config = if url.starts_with("https:") { trusting(None) } else { trusting(none()) };
        Ok(Self::over(config.map_err(|why| Trouble::new("tls", why))?))
    }

    pub(super) fn over(config: rustls::ClientConfig) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(TIMEOUT));
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(config).https_or_http().enable_http1().wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_mins(1))
            .build(connector);
        Self { client }
    }

    /// Gets a list, unless it is as it was. `secret`: a header and its value.
    pub(super) async fn get(
        &self,
        url: &str,
        known: &Mark,
        secret: Option<(&'static str, &str)>,
    ) -> Result<Got, Trouble> {
        match tokio::time::timeout(TIMEOUT, self.asked(url, known, secret)).await {
            Ok(got) => got,
            Err(_) => Err(Trouble::new("timeout", format!("no whole answer within {} s", TIMEOUT.as_secs()))),
        }
    }

    async fn asked(&self, url: &str, known: &Mark, secret: Option<(&'static str, &str)>) -> Result<Got, Trouble> {
        let uri: Uri = url.parse().map_err(|_| Trouble::new("unreachable", "not a URL"))?;
        let mut request = Request::new(Empty::new());
        *request.method_mut() = Method::GET;
        *request.uri_mut() = uri;
        let headers = request.headers_mut();
        headers.insert(header::USER_AGENT, HeaderValue::from_static(concat!("weir/", env!("CARGO_PKG_VERSION"))));
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if let Mark::ETag(tag) = known {
            headers.insert(header::IF_NONE_MATCH, tag.clone());
        }
        if let Some((name, value)) = secret {
            let mut value = HeaderValue::try_from(value)
                .map_err(|_| Trouble::new("key", "the key has bytes that a header can't carry"))?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        let response = self.client.request(request).await.map_err(|error| {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            Trouble::new("unreachable", format!("{error}{cause}"))
        })?;
        answer(response).await
    }
}

/// TLS that trusts these certificates; `None`: the system's (`SSL_CERT_FILE` names others).
pub(super) fn trusting(roots: Option<rustls::RootCertStore>) -> Result<rustls::ClientConfig, String> {
    let provider = rustls::crypto::ring::default_provider();
    let config = rustls::ClientConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(match roots {
        Some(roots) => config.with_root_certificates(roots),
        None => config.with_native_roots().map_err(|error| format!("system roots: {error}"))?,
    }
    .with_no_client_auth())
}

async fn answer(response: Response<hyper::body::Incoming>) -> Result<Got, Trouble> {
    let status = response.status();
    match status {
        StatusCode::NOT_MODIFIED => return Ok(Got::Same),
        StatusCode::OK => {}
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            return Err(Trouble::new("forbidden", format!("the answer was {status}: is the key right?")));
        }
        _ if status.is_redirection() => {
            return Err(Trouble::new(
                "status",
                format!("the answer was {status}: write the URL where it has moved to"),
            ));
        }
        _ => return Err(Trouble::new("status", format!("the answer was {status}"))),
    }
    let mark = response.headers().get(header::ETAG).map_or(Mark::None, |tag| Mark::ETag(tag.clone()));
    match Limited::new(response.into_body(), BYTES).collect().await {
        Ok(body) => Ok(Got::List(body.to_bytes(), mark)),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(large()),
        Err(error) => Err(Trouble::new("unreachable", format!("the answer was cut short: {error}"))),
    }
}

fn large() -> Trouble {
    Trouble::new("too_large", format!("more than {} MiB", BYTES >> 20))
}

/// Reads a file, unless it is as it was.
pub(super) fn file(path: &Path, known: &Mark) -> Result<Got, Trouble> {
    let wrong = |error: std::io::Error| Trouble::new("unreadable", format!("{}: {error}", path.display()));
    // Opening a pipe would wait for its other end.
    let file = fs::File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(wrong)?;
    let data = file.metadata().map_err(wrong)?;
    if !data.is_file() {
        return Err(Trouble::new("unreadable", format!("{}: no regular file", path.display())));
    }
    let mark = Mark::File(data.dev(), data.ino(), data.len(), data.mtime(), data.mtime_nsec());
    if mark == *known {
        return Ok(Got::Same);
    }
    let mut bytes = Vec::new();
    file.take(BYTES as u64 + 1).read_to_end(&mut bytes).map_err(wrong)?;
    if bytes.len() > BYTES { Err(large()) } else { Ok(Got::List(bytes.into(), mark)) }
}
