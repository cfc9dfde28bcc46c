//! Signatures for Secure Boot: Microsoft's "Windows Authenticode Portable Executable Signature Format", with RSA and SHA-256.
//! The signature holds no time, and RSA's padding (PKCS #1 v1.5) no chance, so the same image gets the same one.

use std::fmt;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest as _, Sha256};

use super::{der, pe};
use crate::format::{Extents, FormatError, Watch};

/// Longest file with a key or certificates: a hundred times what they take.
const PEM_LIMIT_BYTES: u64 = 1 << 20;

/// Identifiers of objects, as DER.
const SIGNED_DATA: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02];
const CONTENT_TYPE: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x03];
const MESSAGE_DIGEST: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x04];
const INDIRECT_DATA: &[u8] = &[0x06, 0x0a, 0x2b, 0x06, 0x01, 0x04, 0x01, 0x82, 0x37, 0x02, 0x01, 0x04];

/// Algorithms with their empty parameters.
const SHA256: &[u8] = &[0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00];
const RSA: &[u8] = &[0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];

/// That what is signed is a PE file: `SpcPeImageData` with no flags and an empty file name.
const PE_IMAGE: &[u8] = &[
    0x30, 0x17, 0x06, 0x0a, 0x2b, 0x06, 0x01, 0x04, 0x01, 0x82, 0x37, 0x02, 0x01, 0x0f, 0x30, 0x09, 0x03, 0x01, 0x00,
    0xa0, 0x04, 0xa2, 0x02, 0x80, 0x00,
];

/// A key and its certificate, to sign EFI programs with. What `Debug` shows is the certificate's digest.
#[derive(Clone)]
pub struct Signer {
    key: Arc<RsaKeyPair>,
    /// All of them; the first is the key's.
    certificates: Arc<[Vec<u8>]>,
    /// Issuer and serial number of the first.
    name: Arc<[u8]>,
}

/// Why nothing can be signed.
#[derive(Debug, thiserror::Error)]
pub enum SignerError {
    /// A file cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The key has a passphrase.
    #[error("the key in `{}` is encrypted; `openssl pkey -in KEY.pem -out PLAIN.pem` takes the passphrase away", path.display())]
    Encrypted {
        /// Which.
        path: PathBuf,
    },
    /// A file without a key.
    #[error("`{}` has no private key in PEM; such a file starts with `-----BEGIN PRIVATE KEY-----`", path.display())]
    NoKey {
        /// Which.
        path: PathBuf,
    },
    /// A key that firmware does not take.
    #[error("the key in `{}` is no RSA key of 2048 to 4096 bits, which is what firmware takes", path.display())]
    NotRsa {
        /// Which.
        path: PathBuf,
    },
    /// A file without a certificate.
    #[error("`{}` has no X.509 certificate in PEM; such a file starts with `-----BEGIN CERTIFICATE-----`", path.display())]
    NoCertificate {
        /// Which.
        path: PathBuf,
    },
    /// The certificate is another key's.
    #[error("the certificate in `{}` is not that of the key in `{}`", certificate.display(), key.display())]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
}

impl Signer {
    /// A key and its certificate from PEM files; further certificates behind the first are put into signatures too.
    pub fn read(key: &Path, certificate: &Path) -> Result<Self, SignerError> {
        let pair = read_key(key)?;
        let no_certificate = || SignerError::NoCertificate { path: certificate.into() };
        let text = read_pem(certificate)?;
        let certificates: Result<Vec<_>, _> =
            CertificateDer::pem_slice_iter(&text).map(|found| found.map(|found| found.to_vec())).collect();
        let certificates = certificates.map_err(|_| no_certificate())?;
        let first = certificates.first().and_then(|first| der::Certificate::parse(first)).ok_or_else(no_certificate)?;
        if first.public_key != pair.public().as_ref() {
            return Err(SignerError::Mismatch { certificate: certificate.into(), key: key.into() });
        }
        let name = der::sequence(&[first.issuer, first.serial]).into();
        Ok(Self { key: Arc::new(pair), name, certificates: certificates.into() })
    }

    /// Puts a signature behind a PE file that [`pe::image`] laid out.
    pub(super) fn sign(&self, image: &mut Extents, watch: Watch<'_>) -> Result<(), FormatError> {
        let content = [PE_IMAGE, &der::sequence(&[SHA256, &der::octets(&digest(image, watch)?)])].concat();
        let signature = self.signed_data(&content).map_err(|_| io::Error::other("the key refuses to sign"))?;
        let padded = (signature.len() + 8).next_multiple_of(8);
        let len = u32::try_from(padded).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        // A revision and a type: PKCS #7.
        let mut entry = [&len.to_le_bytes()[..], &[0, 2, 2, 0], &signature].concat();
        entry.resize(padded, 0);
        *image = pe::with_certificates(image, &entry)?;
        Ok(())
    }

    /// PKCS #7's `SignedData` over the body of a `SpcIndirectDataContent`.
    fn signed_data(&self, content: &[u8]) -> Result<Vec<u8>, ring::error::Unspecified> {
        let attribute = |kind: &[u8], value: &[u8]| der::sequence(&[kind, &der::set(&[value])]);
        // A set's elements are sorted by their bytes; the shorter comes first here.
        let attributes =
            [attribute(CONTENT_TYPE, INDIRECT_DATA), attribute(MESSAGE_DIGEST, &der::octets(&Sha256::digest(content)))];
        let attributes: Vec<&[u8]> = attributes.iter().map(Vec::as_slice).collect();
        let mut signature = vec![0; self.key.public().modulus_len()];
        self.key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), &der::set(&attributes), &mut signature)?;

        let version = der::integer_one();
        let signer =
            der::sequence(&[version, &self.name, SHA256, &der::context(0, &attributes), RSA, &der::octets(&signature)]);
        let certificates: Vec<&[u8]> = self.certificates.iter().map(Vec::as_slice).collect();
        let signed = der::sequence(&[
            version,
            &der::set(&[SHA256]),
            &der::sequence(&[INDIRECT_DATA, &der::context(0, &[&der::sequence(&[content])])]),
            &der::context(0, &certificates),
            &der::set(&[&signer]),
        ]);
        Ok(der::sequence(&[SIGNED_DATA, &der::context(0, &[&signed])]))
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signer ")?;
        let mut all = Sha256::new();
        self.certificates.iter().for_each(|certificate| all.update(certificate));
        all.finalize().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

fn read_key(path: &Path) -> Result<RsaKeyPair, SignerError> {
    let text = read_pem(path)?;
    if text.windows(9).any(|part| part == b"ENCRYPTED") {
        return Err(SignerError::Encrypted { path: path.into() });
    }
    let key = PrivateKeyDer::from_pem_slice(&text).map_err(|_| SignerError::NoKey { path: path.into() })?;
    let pair = match &key {
        PrivateKeyDer::Pkcs8(key) => RsaKeyPair::from_pkcs8(key.secret_pkcs8_der()),
        PrivateKeyDer::Pkcs1(key) => RsaKeyPair::from_der(key.secret_pkcs1_der()),
        _ => return Err(SignerError::NotRsa { path: path.into() }),
    };
    pair.map_err(|_| SignerError::NotRsa { path: path.into() })
}

fn read_pem(path: &Path) -> Result<Vec<u8>, SignerError> {
    let mut text = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(PEM_LIMIT_BYTES).read_to_end(&mut text));
    read.map_err(|source| SignerError::Read { path: path.into(), source })?;
    Ok(text)
}

/// What is signed: all of the file but its checksum and the place of its signatures.
fn digest(image: &Extents, watch: Watch<'_>) -> Result<[u8; 32], FormatError> {
    const PIECE_BYTES: usize = 1 << 20;
    let mut all = Sha256::new();
    let mut buffer = vec![0; PIECE_BYTES];
    let ends = [pe::CHECKSUM_OFFSET, pe::CERTIFICATES_OFFSET, image.len_bytes()];
    let mut at = 0;
    for (end, left_out) in ends.into_iter().zip([4, 8, 0]) {
        while at < end {
            watch.cancel.check()?;
            let len = usize::try_from(end - at).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
            image.read_at(&mut buffer[..len], at)?;
            all.update(&buffer[..len]);
            at += len as u64;
        }
        at += left_out;
    }
    Ok(all.finalize().into())
}
