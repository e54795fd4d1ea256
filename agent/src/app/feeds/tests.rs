use std::sync::Arc;

use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::fetch::{Got, Http, Mark, file, trusting};

/// Answers one request with these bytes, over TLS where there is a configuration for it.
async fn once(answer: Vec<u8>, tls: Option<Arc<rustls::ServerConfig>>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut buffer = [0; 4096];
        match tls {
            None => {
                let _ = stream.read(&mut buffer).await;
                let _ = stream.write_all(&answer).await;
            }
            Some(config) => {
                let Ok(mut stream) = tokio_rustls::TlsAcceptor::from(config).accept(stream).await else { return };
                let _ = stream.read(&mut buffer).await;
                let _ = stream.write_all(&answer).await;
                let _ = stream.shutdown().await;
            }
        }
    });
    port
}

async fn reason(answer: &[u8]) -> &'static str {
    let url = format!("http://127.0.0.1:{}/", once(answer.to_vec(), None).await);
    match Http::new(&url).unwrap().get(&url, &Mark::None, None).await {
        Ok(Got::Same) => "same",
        Ok(Got::List(..)) => "list",
        Err(trouble) => trouble.reason,
    }
}

#[tokio::test]
async fn answers_that_are_no_list_are_told_apart() {
    let large = [b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".to_vec(), vec![b'1'; 33 << 20]].concat();
    for (answer, wanted) in [
        (&b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab"[..], "list"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab", "unreachable"),
        (b"HTTP/1.1 304 Not Modified\r\n\r\n", "same"),
        (b"HTTP/1.1 301 Moved\r\nLocation: http://x/\r\nContent-Length: 0\r\n\r\n", "status"),
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", "forbidden"),
        (b"HTTP/1.1 206 Partial Content\r\nContent-Length: 2\r\n\r\nab", "status"),
        (b"SSH-2.0-x\r\n", "unreachable"),
        (b"", "unreachable"),
        (&large, "too_large"),
    ] {
        assert_eq!(reason(answer).await, wanted, "{:?}", String::from_utf8_lossy(&answer[..answer.len().min(40)]));
    }
}

#[tokio::test]
async fn a_server_that_nobody_vouches_for_is_not_believed() {
    let signed = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(signed.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(vec![signed.cert.der().clone()], key).unwrap();
    let config = Arc::new(config);
    let mut roots = rustls::RootCertStore::empty();
    roots.add(signed.cert.der().clone()).unwrap();
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n192.0.2.1".to_vec();
    let url = format!("https://localhost:{}/", once(answer.clone(), Some(Arc::clone(&config))).await);
    let got = Http::over(trusting(Some(roots)).unwrap()).get(&url, &Mark::None, None).await;
    assert!(matches!(got, Ok(Got::List(bytes, Mark::None)) if &bytes[..] == b"192.0.2.1"));
    let url = format!("https://localhost:{}/", once(answer, Some(config)).await);
    let got = Http::over(trusting(Some(rustls::RootCertStore::empty())).unwrap()).get(&url, &Mark::None, None).await;
    assert_eq!(got.err().unwrap().reason, "unreachable");
}

#[test]
fn only_regular_files_are_read() {
    for path in ["/", "/dev/null", "/nonexistent"] {
        assert_eq!(file(path.as_ref(), &Mark::None).err().unwrap().reason, "unreadable", "{path}");
    }
    let Ok(Got::List(bytes, mark)) = file("/proc/self/exe".as_ref(), &Mark::None) else { return };
    assert!(!bytes.is_empty() && matches!(file("/proc/self/exe".as_ref(), &mark), Ok(Got::Same)));
}
