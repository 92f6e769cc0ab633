//! Which files are of use, what is said of the others, and how long a handshake may take.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use super::*;
use crate::assembly::build_pipeline;
use crate::config;

/// An authority, and a certificate and key that it signed.
fn authority() -> (String, String, String) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    (issuer.pem(), certificate.pem(), key.serialize_pem())
}

/// What is said of these contents of certificate, key and authorities.
fn say(certificate: &str, key: &str, client_ca: Option<&str>) -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let files = Files {
        certificate: write("certificate.pem", certificate),
        key: write("key.pem", key),
        client_ca: client_ca.map(|text| write("ca.pem", text)),
    };
    check(&files).map_err(|error| error.to_string())
}

#[test]
fn files_that_fit_are_taken_whatever_stands_around_them() {
    let (authority, certificate, key) = authority();
    assert_eq!(say(&certificate, &key, None), Ok(()));
    assert_eq!(say(&format!("{certificate}{authority}"), &key, Some(&authority)), Ok(()));
    let both = format!("Some words.\n{key}{certificate}");
    assert_eq!(say(&both, &both, Some(&both)), Ok(()));
}

#[test]
fn files_that_do_not_fit_are_named_with_what_is_wrong_and_never_shown() {
    let (authority, certificate, key) = authority();
    let (_, _, other_key) = super::tests::authority();
    let encrypted = key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    let cut = key.replacen('\n', "\nhush!hush!", 1);
    let garbage = "-----BEGIN CERTIFICATE-----\naHVzaA==\n-----END CERTIFICATE-----\n";
    for (certificate, key, client_ca, says) in [
        ("", &*key, None, "tls.certificate: certificate.pem: there is no certificate in it"),
        (&*key, &*key, None, "tls.certificate: certificate.pem: there is no certificate in it"),
        (garbage, &*key, None, "tls.certificate: certificate.pem: no usable certificate"),
        (&*certificate, "", None, "tls.key: key.pem: there is no private key in it"),
        (&*certificate, &*certificate, None, "tls.key: key.pem: there is no private key in it"),
        (&*certificate, &*encrypted, None, "tls.key: key.pem: the private key is encrypted"),
        (&*certificate, &*cut, None, "tls.key: key.pem: there is no private key in it"),
        (&*certificate, &*other_key, None, "tls.key: key.pem: this is not the key of the certificate in"),
        (&*certificate, &*key, Some(""), "tls.client_ca: ca.pem: there is no certificate in it"),
        (&*certificate, &*key, Some(garbage), "tls.client_ca: ca.pem: no usable certificate"),
        (&*format!("{authority}{certificate}"), &*key, None, "whose first one has to be the server's own"),
    ] {
        let error = say(certificate, key, client_ca).unwrap_err();
        // Without the folder.
        let words: Vec<&str> = error.split(' ').map(|word| word.rsplit('/').next().unwrap()).collect();
        assert!(words.join(" ").contains(says), "no {says:?} in {error}");
        assert!(!error.contains("hush") && !key.lines().skip(1).any(|line| error.contains(line)), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_says_nothing_is_not_waited_for() {
    let (_, certificate, key) = authority();
    let folder = tempfile::tempdir().unwrap();
    let (certificate_path, key_path) = (folder.path().join("c"), folder.path().join("k"));
    std::fs::write(&certificate_path, certificate).unwrap();
    std::fs::write(&key_path, key).unwrap();
    let (pipeline, _) = build_pipeline(&config::load(None, &[]).unwrap()).unwrap();
    let files = Files { certificate: certificate_path, key: key_path, client_ca: None };
    let tls = Tls::open(&files, Arc::new(pipeline)).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    let started = tokio::time::Instant::now();
    assert!(matches!(tls.accept(stream).await, Err(HandshakeError::Timeout)));
    assert_eq!(started.elapsed().as_secs(), HANDSHAKE_TIMEOUT.as_secs());
}
