//! Certificates of an endpoint.

use std::path::Path;

use hyper_rustls::ConfigBuilderExt as _;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

use super::EndpointError;
use crate::export::settings::Endpoint;

/// TLS of OTLP/gRPC.
pub(super) fn grpc(endpoint: &Endpoint) -> Result<ClientTlsConfig, EndpointError> {
    let mut config = ClientTlsConfig::new();
    config = match &endpoint.tls.ca {
        Some(path) => config.ca_certificate(Certificate::from_pem(read(path)?)),
        None => config.with_native_roots(),
    };
    if let Some((chain, key)) = &endpoint.tls.client {
        config = config.identity(Identity::from_pem(read(chain)?, read(key)?));
    }
    Ok(config)
}

/// TLS of OTLP/HTTP; without `secure` one that trusts nobody, for a connector that will not use it.
pub(super) fn http(endpoint: &Endpoint, secure: bool) -> Result<rustls::ClientConfig, EndpointError> {
    let fail = |why: String| EndpointError::Tls { url: endpoint.url.clone(), why };
    let provider = rustls::crypto::ring::default_provider();
    let config = rustls::ClientConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .map_err(|error| fail(error.to_string()))?;
    if !secure {
        return Ok(config.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth());
    }
    let config = match &endpoint.tls.ca {
        Some(path) => {
            let mut roots = rustls::RootCertStore::empty();
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(|error| bad(path, &error))?;
            }
            config.with_root_certificates(roots)
        }
        None => config.with_native_roots().map_err(|error| fail(format!("system roots: {error}")))?,
    };
    let Some((chain, key)) = &endpoint.tls.client else { return Ok(config.with_no_client_auth()) };
    let private = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|error| bad(key, &error))?;
    config.with_client_auth_cert(certificates(chain)?, private).map_err(|error| bad(chain, &error))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, EndpointError> {
    let certificates: Vec<_> =
        CertificateDer::pem_slice_iter(&read(path)?).collect::<Result<_, _>>().map_err(|error| bad(path, &error))?;
    if certificates.is_empty() {
        return Err(bad(path, &"it holds no certificate in PEM form"));
    }
    Ok(certificates)
}

fn read(path: &Path) -> Result<Vec<u8>, EndpointError> {
    std::fs::read(path).map_err(|error| bad(path, &error))
}

fn bad(path: &Path, why: &dyn std::fmt::Display) -> EndpointError {
    EndpointError::Certificate { path: path.to_owned(), why: why.to_string() }
}
