//! What is claimed of bytes that we wrote. The libraries are asked about all of them at once, and
//! all that is wrong is told together.

use bytes::Bytes;
use warren_protocol::Encoding;

use crate::codecs::Codecs;

#[derive(Default)]
pub(crate) struct Claims {
    bodies: Vec<(Encoding, Bytes)>,
    claims: Vec<(String, String)>,
    faults: Vec<String>,
}

impl Claims {
    /// The library of the encoding sees this in the bytes.
    pub(crate) fn sees(&mut self, of: &str, encoding: Encoding, body: Bytes, seen: &str) {
        self.bodies.push((encoding, body));
        self.claims.push((of.to_owned(), seen.to_owned()));
    }

    pub(crate) fn holds(&mut self, holds: bool, fault: impl FnOnce() -> String) {
        if !holds {
            self.faults.push(fault());
        }
    }

    pub(crate) fn settle(mut self, codecs: &mut Codecs) {
        const SHOWN: usize = 20;
        for ((of, claimed), seen) in self.claims.iter().zip(codecs.see(&self.bodies)) {
            if seen.as_deref() != Ok(claimed) {
                let seen = seen.unwrap_or_else(|fault| fault);
                let at = difference(seen.as_bytes(), claimed.as_bytes());
                self.faults.push(format!("{of}: {at}"));
            }
        }
        let count = self.faults.len();
        self.faults.truncate(SHOWN);
        assert!(count == 0, "{count} faults:\n{}", self.faults.join("\n"));
    }
}

/// The first place where bytes differ, with what is before and behind it.
pub(crate) fn difference(ours: &[u8], theirs: &[u8]) -> String {
    const AROUND: usize = 40;
    let same = ours.iter().zip(theirs).take_while(|(a, b)| a == b).count();
    let around = |bytes: &[u8]| {
        let part = &bytes[same.saturating_sub(AROUND)..bytes.len().min(same + AROUND)];
        part.escape_ascii().to_string()
    };
    format!("`{}` is not `{}`", around(ours), around(theirs))
}
