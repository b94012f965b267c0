//! The webhooks' own certificate: made here, kept in a Secret that all controllers share, renewed
//! long before it ends, and made known to the API server.
//!
//! The authority outlives the certificates that it signs, so that a renewal changes nothing in
//! the cluster but the Secret. A new authority is announced beside the old one.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use kube::api::{Api, ObjectMeta, PostParams};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::KubeError;

/// Name of the Secret, and of both webhook configurations.
const SECRET: &str = "kfault-webhook";
pub const CONFIGURATION: &str = "kfault";
/// For how long a certificate holds, and after which part of that a new one is made.
const CERTIFICATE: SignedDuration = SignedDuration::from_hours(90 * 24);
const RENEW: SignedDuration = SignedDuration::from_hours(60 * 24);
/// The same for the authority.
const AUTHORITY: SignedDuration = SignedDuration::from_hours(10 * 365 * 24);
const RENEW_AUTHORITY: SignedDuration = SignedDuration::from_hours(9 * 365 * 24);
/// Clocks differ: what is made now holds since yesterday.
const SINCE: SignedDuration = SignedDuration::from_hours(24);
/// Annotations of the Secret: when something new is due, and for whom this was made.
const DUE: &str = "kfault.dev/renew-after";
const AUTHORITY_DUE: &str = "kfault.dev/renew-authority-after";
const NAMES: &str = "kfault.dev/names";
/// Keys of the Secret.
const CA: &str = "ca.crt";
const CA_KEY: &str = "ca.key";
const CHAIN: &str = "tls.crt";
const KEY: &str = "tls.key";

/// A certificate to serve with.
#[derive(Clone)]
pub struct Certificate {
    /// What a TLS server needs.
    pub config: Arc<ServerConfig>,
    /// Authorities that the API server shall trust, as PEM.
    pub authorities: Vec<u8>,
    /// It has a newer one when this differs.
    pub version: String,
}

/// The certificate of the Secret, made anew where it is missing, due or for other names.
///
/// # Errors
/// [`KubeError`] when the Secret cannot be read or written, or holds something else.
pub async fn ensure(
    client: &Client,
    namespace: &str,
    names: &[String],
    now: Timestamp,
) -> Result<Certificate, KubeError> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let doing = || format!("keep the webhooks' certificate in the Secret {namespace}/{SECRET}");
    // A second round finds what another controller has written meanwhile.
    for _ in 0..5 {
        let known = api.get_opt(SECRET).await.map_err(KubeError::api(doing()))?;
        if let Some(secret) = known.as_ref().filter(|secret| is_good(secret, names, now)) {
            return read(secret);
        }
        let fresh = made(known.as_ref(), names, now)?;
        let written = match &known {
            Some(_) => api.replace(SECRET, &PostParams::default(), &fresh).await,
            None => api.create(&PostParams::default(), &fresh).await,
        };
        match written {
            Ok(secret) => return read(&secret),
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => return Err(KubeError::api(doing())(error)),
        }
    }
    Err(broken("others write it again and again"))
}

/// Tells the API server whom to trust. `Ok(false)`: this cluster has no webhooks of ours.
///
/// # Errors
/// [`KubeError`] when a configuration cannot be read or written.
pub async fn announce(client: &Client, authorities: &[u8]) -> Result<bool, KubeError> {
    let doing = || format!("make the certificate known to the webhooks of {CONFIGURATION}");
    let bundle = Some(ByteString(authorities.to_vec()));
    let parameters = PostParams::default();
    let mut is_found = false;
    // The two are alike and have no common type.
    macro_rules! announce {
        ($configuration:ty) => {
            let api: Api<$configuration> = Api::all(client.clone());
            let known = api.get_opt(CONFIGURATION).await.map_err(KubeError::api(doing()))?;
            if let Some(mut all) = known {
                let mut is_changed = false;
                for hook in all.webhooks.iter_mut().flatten() {
                    is_changed |= hook.client_config.ca_bundle != bundle;
                    hook.client_config.ca_bundle.clone_from(&bundle);
                }
                if is_changed {
                    let written = api.replace(CONFIGURATION, &parameters, &all).await;
                    written.map_err(KubeError::api(doing()))?;
                }
                is_found = true;
            }
        };
    }
    announce!(MutatingWebhookConfiguration);
    announce!(ValidatingWebhookConfiguration);
    Ok(is_found)
}

fn is_good(secret: &Secret, names: &[String], now: Timestamp) -> bool {
    let note = |key: &str| secret.metadata.annotations.as_ref()?.get(key);
    let is_early =
        |key: &str| note(key).and_then(|text| text.parse().ok()).is_some_and(|due| now < due);
    is_early(DUE)
        && is_early(AUTHORITY_DUE)
        && note(NAMES).is_some_and(|text| *text == names.join(","))
        && read(secret).is_ok()
}

fn text<'a>(secret: &'a Secret, key: &str) -> Result<&'a str, KubeError> {
    let bytes = secret.data.as_ref().and_then(|data| data.get(key));
    bytes
        .and_then(|bytes| std::str::from_utf8(&bytes.0).ok())
        .ok_or_else(|| broken(format!("it has no {key}")))
}

fn read(secret: &Secret) -> Result<Certificate, KubeError> {
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(text(secret, CHAIN)?.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(broken)?;
    let key = PrivateKeyDer::from_pem_slice(text(secret, KEY)?.as_bytes()).map_err(broken)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(broken)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(broken)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Certificate {
        config: Arc::new(config),
        authorities: text(secret, CA)?.as_bytes().to_vec(),
        version: secret.metadata.resource_version.clone().unwrap_or_default(),
    })
}

/// A Secret with a new certificate, and with a new authority where the old one is due.
fn made(old: Option<&Secret>, names: &[String], now: Timestamp) -> Result<Secret, KubeError> {
    let note = |key: &str| old?.metadata.annotations.as_ref()?.get(key).cloned();
    let authority_due: Option<Timestamp> = note(AUTHORITY_DUE).and_then(|text| text.parse().ok());
    let kept = old.filter(|_| authority_due.is_some_and(|due| now < due)).and_then(|secret| {
        let key = KeyPair::from_pem(text(secret, CA_KEY).ok()?).ok()?;
        Some((key, text(secret, CA).ok()?.to_owned()))
    });
    let (authority_key, authorities, authority_due) = match (kept, authority_due) {
        (Some((key, authorities)), Some(due)) => (key, authorities, due),
        _ => {
            let key = KeyPair::generate().map_err(broken)?;
            let mut own = authority();
            (own.not_before, own.not_after) = (date(now - SINCE), date(now + AUTHORITY));
            let own = own.self_signed(&key).map_err(broken)?.pem();
            // Who is asked meanwhile still serves with what the old one has signed.
            let before = old.and_then(|secret| text(secret, CA).ok()).unwrap_or_default();
            let before = first(before);
            (key, format!("{own}{before}"), now + RENEW_AUTHORITY)
        }
    };
    let authority_pem = authority_key.serialize_pem();
    let issuer = Issuer::new(authority(), authority_key);
    let key = KeyPair::generate().map_err(broken)?;
    let mut own = CertificateParams::new(names.to_vec()).map_err(broken)?;
    (own.not_before, own.not_after) = (date(now - SINCE), date(now + CERTIFICATE));
    let chain = own.signed_by(&key, &issuer).map_err(broken)?.pem();
    let data =
        [(CA, authorities), (CA_KEY, authority_pem), (CHAIN, chain), (KEY, key.serialize_pem())];
    let notes = [
        (DUE, (now + RENEW).to_string()),
        (AUTHORITY_DUE, authority_due.to_string()),
        (NAMES, names.join(",")),
    ];
    let mut metadata = old.map_or_else(
        || ObjectMeta { name: Some(SECRET.to_owned()), ..ObjectMeta::default() },
        |secret| secret.metadata.clone(),
    );
    let annotations = metadata.annotations.get_or_insert_default();
    annotations.extend(notes.map(|(key, value)| (key.to_owned(), value)));
    let data: BTreeMap<_, _> = data
        .into_iter()
        .map(|(key, text)| (key.to_owned(), ByteString(text.into_bytes())))
        .collect();
    Ok(Secret { metadata, data: Some(data), ..Secret::default() })
}

/// What an authority says of itself. Issuer of every certificate under its key.
fn authority() -> CertificateParams {
    let mut own = CertificateParams::default();
    own.distinguished_name.push(DnType::CommonName, "kfault webhooks");
    own.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    own.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    own
}

/// The first certificate of a list in PEM.
fn first(pem: &str) -> &str {
    const END: &str = "-----END CERTIFICATE-----";
    match pem.find(END) {
        Some(at) => {
            let rest = &pem[at + END.len()..];
            &pem[..pem.len() - rest.trim_start().len()]
        }
        None => "",
    }
}

/// To the day.
fn date(moment: Timestamp) -> time::OffsetDateTime {
    let day = moment.to_zoned(TimeZone::UTC).date();
    let (month, dom) = (day.month().unsigned_abs(), day.day().unsigned_abs());
    rcgen::date_time_ymd(i32::from(day.year()), month, dom)
}

fn broken(reason: impl ToString) -> KubeError {
    KubeError::Object { object: format!("Secret {SECRET}"), reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Vec<String> {
        vec!["kfault.chaos-mesh.svc".to_owned()]
    }

    fn at(days: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + days * 86_400).unwrap()
    }

    #[test]
    fn a_certificate_is_kept_until_it_is_due() {
        let secret = made(None, &names(), at(0)).unwrap();
        assert!(is_good(&secret, &names(), at(59)));
        assert!(!is_good(&secret, &names(), at(61)));
        assert!(!is_good(&secret, &["other".to_owned()], at(0)));
        assert!(!is_good(&Secret::default(), &names(), at(0)));
    }

    #[test]
    fn a_renewal_keeps_its_authority() {
        let old = made(None, &names(), at(0)).unwrap();
        let new = made(Some(&old), &names(), at(61)).unwrap();
        assert_eq!(text(&old, CA).unwrap(), text(&new, CA).unwrap());
        assert_ne!(text(&old, CHAIN).unwrap(), text(&new, CHAIN).unwrap());
        assert!(is_good(&new, &names(), at(61)));
    }

    #[test]
    fn a_new_authority_is_announced_beside_the_old_one() {
        let old = made(None, &names(), at(0)).unwrap();
        let late = at(9 * 365 + 1);
        let new = made(Some(&old), &names(), late).unwrap();
        let (before, after) = (text(&old, CA).unwrap(), text(&new, CA).unwrap());
        assert!(after.ends_with(before) && after != before);
        let newer = made(Some(&new), &names(), late + RENEW_AUTHORITY).unwrap();
        let count = text(&newer, CA).unwrap().matches("END CERTIFICATE").count();
        assert_eq!(count, 2);
    }
}
