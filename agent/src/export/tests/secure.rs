//! TLS: own authority, client certificate, and what happens when they don't fit.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::*;

/// An authority, and what it signed.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Certificate and key for a name, in PEM.
    fn sign(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &self.0).unwrap();
        (certificate.pem(), key.serialize_pem())
    }
}

/// A folder for certificates, gone when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("weir-export-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

fn rustls_server(certificate: &str, key: &str, authority: &str) -> Arc<rustls::ServerConfig> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let clients = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_client_cert_verifier(clients.build().unwrap());
    let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
    Arc::new(config.with_single_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap()).unwrap())
}

#[tokio::test]
async fn certificates_of_both_sides() {
    let (ours, other) = (Authority::new(), Authority::new());
    let authority = ours.0.pem();
    let (certificate, key) = ours.sign("localhost");
    for protocol in [Protocol::Grpc, Protocol::Http] {
        let folder = Folder::new(&format!("{protocol:?}"));
        let (chain, private) = ours.sign("weir");
        let client = (folder.file("client.pem", &chain), folder.file("client.key", &private));
        let trusted = folder.file("ca.pem", &authority);
        let stranger = folder.file("other.pem", &other.0.pem());
        let cases = [
            (Some(trusted.clone()), Some(client.clone()), [("ok", 5)]),
            // The server's certificate is not signed by whom we trust.
            (Some(stranger), Some(client.clone()), [("expired", 5)]),
            (None, Some(client), [("expired", 5)]),
            // The server wants a client certificate.
            (Some(trusted), None, [("expired", 5)]),
        ];
        for (case, (ca, client, expected)) in cases.into_iter().enumerate() {
            let desk = Desk::default();
            let receiver = match protocol {
                Protocol::Grpc => receiver::grpc(&desk, "127.0.0.1:0", Some((&certificate, &key, &authority))).await,
                Protocol::Http => {
                    receiver::http(&desk, "127.0.0.1:0", Some(rustls_server(&certificate, &key, &authority))).await
                }
            };
            let base = format!("https://localhost:{}", receiver.address.port());
            let url = Endpoint::url_of(&base, protocol, Signal::Traces);
            let mut to = settings(Endpoint { url, protocol, tls: Tls { ca, client }, ..Endpoint::default() });
            to.retry.give_up = if expected[0].0 == "ok" { FLUSH } else { Duration::from_millis(300) };
            let ledger = Arc::new(Ledger::default());
            let exporter = start(&to, Arc::clone(&ledger)).unwrap();
            exporter.offer(&calls(5));
            exporter.stop(FLUSH).await;
            assert_eq!(book(&ledger), expected, "{protocol:?} case {case}");
            assert_eq!(desk.spans().len(), if expected[0].0 == "ok" { 5 } else { 0 });
        }
    }
}
