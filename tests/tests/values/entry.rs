//! One value as its library wrote it, and what has to become of it.

use bytes::Bytes;
use serde_json::Value;
use warren_protocol::{CodecError, Encoding, Payload};

use crate::{
    claims::{Claims, difference},
    codecs::{encoding, hex, name},
};

pub(crate) struct Entry {
    pub(crate) encoding: Encoding,
    name: String,
    alone: Written,
    job: Written,
    /// The way back leads to the same value, but to other bytes.
    loose: bool,
    /// We mend the text, so it does not keep its bytes.
    mended: bool,
    /// It nests too deep.
    refused: bool,
}

/// The bytes, and what the libraries have to see.
struct Written {
    body: Bytes,
    sees: String,
    others: Vec<Other>,
}

/// The value in another encoding.
struct Other {
    encoding: Encoding,
    sees: String,
    /// The bytes, where the library there would write the same.
    exact: Option<Bytes>,
    /// What is seen after the way back.
    back: String,
}

impl Entry {
    pub(crate) fn read(entry: &Value) -> Self {
        let flag = |name: &str| entry[name].as_bool().unwrap();
        Self {
            encoding: encoding(&entry["encoding"]),
            name: entry["name"].as_str().unwrap().to_owned(),
            alone: Written::read(&entry["alone"]),
            job: Written::read(&entry["job"]),
            loose: flag("loose"),
            mended: flag("mended"),
            refused: flag("refused"),
        }
    }

    pub(crate) fn check(&self, claims: &mut Claims) {
        if self.refused {
            return self.check_refused(claims);
        }
        self.check_alone(claims);
        self.check_in_a_job(claims);
    }

    fn check_refused(&self, claims: &mut Claims) {
        let deep = |fault: CodecError| fault.to_string().contains("nested deeper than 100 levels");
        let alone = Payload::new(self.encoding, self.alone.body.clone());
        claims.holds(alone.is_err_and(deep), || self.says("is not refused"));
        let job = self.encoding.decode_job(&self.job.body);
        claims.holds(job.is_err_and(deep), || {
            self.says("in a job is not refused")
        });
    }

    fn check_alone(&self, claims: &mut Claims) {
        let written = &self.alone;
        let payload = match Payload::new(self.encoding, written.body.clone()) {
            Ok(payload) => payload,
            Err(fault) => return claims.holds(false, || self.says(&fault.to_string())),
        };
        let kept = payload.to(self.encoding).unwrap().to_bytes().unwrap();
        self.check_kept(claims, written, kept);
        for other in &written.others {
            let there = match payload.to(other.encoding) {
                Ok(there) => there,
                Err(fault) => {
                    claims.holds(false, || self.says(&fault.to_string()));
                    continue;
                }
            };
            match there.to_bytes() {
                Ok(bytes) => self.check_there(claims, other, bytes),
                Err(fault) => claims.holds(is_no_document(&fault, other), || {
                    self.says(&format!("in {}: {fault}", other.encoding))
                }),
            }
            for via in Encoding::ALL {
                let back = there.to(via).and_then(|there| there.to(self.encoding));
                match back.and_then(|back| back.to_bytes()) {
                    Ok(back) => self.check_back(claims, written, other, back),
                    Err(fault) => claims.holds(false, || {
                        self.says(&format!("back from {} and {via}: {fault}", other.encoding))
                    }),
                }
            }
        }
    }

    fn check_in_a_job(&self, claims: &mut Claims) {
        let written = &self.job;
        let job = match self.encoding.decode_job(&written.body) {
            Ok(job) => job,
            Err(fault) => {
                return claims.holds(false, || self.says(&format!("in a job: {fault}")));
            }
        };
        self.check_kept(claims, written, self.encoding.encode_job(&job).unwrap());
        for configured in Encoding::ALL {
            let found = configured.read_job(&written.body);
            claims.holds(found == Ok((self.encoding, job.clone())), || {
                self.says(&format!("in a job is not found from {configured}"))
            });
            let decoded = configured.decode_job(&written.body);
            claims.holds(decoded.is_ok() == (configured == self.encoding), || {
                self.says(&format!("is a job in {configured} as well"))
            });
        }
        for other in &written.others {
            let there = match other.encoding.encode_job(&job) {
                Ok(there) => there,
                Err(fault) => {
                    claims.holds(false, || self.says(&format!("in a job: {fault}")));
                    continue;
                }
            };
            let back = other.encoding.decode_job(&there);
            match back.and_then(|job| self.encoding.encode_job(&job)) {
                Ok(back) => self.check_back(claims, written, other, back),
                Err(fault) => claims.holds(false, || {
                    self.says(&format!("in a job, back from {}: {fault}", other.encoding))
                }),
            }
            self.check_there(claims, other, there);
        }
    }

    // Bytes that a library wrote itself need not be shown to it: the script has told what it sees.

    fn check_kept(&self, claims: &mut Claims, written: &Written, kept: Bytes) {
        if kept == written.body {
            return;
        }
        claims.holds(self.mended, || self.says("does not keep its bytes"));
        claims.sees(&self.says("kept"), self.encoding, kept, &written.sees);
    }

    fn check_there(&self, claims: &mut Claims, other: &Other, bytes: Bytes) {
        if let Some(exact) = &other.exact {
            return claims.holds(*exact == bytes, || {
                let at = difference(&bytes, exact);
                self.says(&format!("has other bytes in {}: {at}", other.encoding))
            });
        }
        let of = self.says(&format!("in {}", other.encoding));
        claims.sees(&of, other.encoding, bytes, &other.sees);
    }

    fn check_back(&self, claims: &mut Claims, written: &Written, other: &Other, back: Bytes) {
        if back == written.body && other.back == written.sees {
            return;
        }
        let other_bytes = self.loose || self.mended || other.back != written.sees;
        claims.holds(other_bytes, || {
            let at = difference(&back, &written.body);
            self.says(&format!(
                "has other bytes, back from {}: {at}",
                other.encoding
            ))
        });
        let of = self.says(&format!("back from {}", other.encoding));
        claims.sees(&of, self.encoding, back, &other.back);
    }

    fn says(&self, what: &str) -> String {
        format!("{} {} {what}", self.encoding, self.name)
    }
}

impl Written {
    fn read(written: &Value) -> Self {
        let others = Encoding::ALL.into_iter().filter_map(|encoding| {
            let other = written["in"].get(name(encoding))?;
            Some(Other {
                encoding,
                sees: other["sees"].as_str()?.to_owned(),
                exact: Some(&other["hex"]).filter(|hex| hex.is_string()).map(hex),
                back: other["back"].as_str()?.to_owned(),
            })
        });
        Self {
            body: hex(&written["hex"]),
            sees: written["sees"].as_str().unwrap_or_default().to_owned(),
            others: others.collect(),
        }
    }
}

/// BSON has no other value at the top than a document, and the error says so.
fn is_no_document(fault: &CodecError, other: &Other) -> bool {
    let said = fault.to_string();
    other.encoding == Encoding::Bson
        && !other.sees.starts_with('{')
        && said.starts_with("BSON cannot say ")
        && said.ends_with(" outside a document")
}
