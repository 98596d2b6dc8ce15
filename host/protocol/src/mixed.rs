//! Bodies in a fleet whose members are not all configured alike. A message does not say which
//! encoding it is in: the configured one is tried first, then the others.
//!
//! A body that its sender meant as one encoding is never a valid message in another. JSON begins
//! with a character below 0x80, where MessagePack has a small integer and no map or array; and it
//! has no zero byte, with which BSON ends. A BSON document begins with its length and the type of
//! its first field, where MessagePack would have the text of a key. Only a body that was made for
//! the purpose can be read in two; then the configured encoding counts.

use bytes::Bytes;

use crate::{Acknowledgement, CodecError, Encoding, Identity, Job, JobError, ListEntry};

/// All answer with the encoding that the body is in.
impl Encoding {
    /// Reads the body of `worker.next` in a fleet of mixed encodings, where `self` is configured.
    ///
    /// # Errors
    /// When no encoding has such a job: the error of the configured one.
    pub fn read_job(self, body: &Bytes) -> Result<(Self, Job), CodecError> {
        self.or_another(body, Self::decode_job)
    }

    /// Reads the body of `worker.next.ack`, as [`Encoding::read_job`] does.
    ///
    /// # Errors
    /// When no encoding has such an acknowledgement: the error of the configured one.
    pub fn read_ack(self, body: &Bytes) -> Result<(Self, Acknowledgement), CodecError> {
        self.or_another(body, Self::decode_ack)
    }

    /// Reads the body of `error`, as [`Encoding::read_job`] does.
    ///
    /// # Errors
    /// When no encoding has such an error: the error of the configured one.
    pub fn read_error(self, body: &Bytes) -> Result<(Self, JobError), CodecError> {
        self.or_another(body, Self::decode_error)
    }

    /// Reads the body of `worker.new.send`, `worker.new.resend` and `worker.del`, as
    /// [`Encoding::read_job`] does.
    ///
    /// # Errors
    /// When no encoding has such an identity: the error of the configured one.
    pub fn read_identity(self, body: &Bytes) -> Result<(Self, Identity), CodecError> {
        self.or_another(body, Self::decode_identity)
    }

    /// Reads the body of `worker.list`, as [`Encoding::read_job`] does.
    ///
    /// # Errors
    /// When no encoding has such a list: the error of the configured one.
    pub fn read_worker_list(self, body: &Bytes) -> Result<(Self, Vec<ListEntry>), CodecError> {
        self.or_another(body, Self::decode_worker_list)
    }

    fn or_another<T>(
        self,
        body: &Bytes,
        decode: impl Fn(Self, &Bytes) -> Result<T, CodecError>,
    ) -> Result<(Self, T), CodecError> {
        decode(self, body)
            .map(|message| (self, message))
            .or_else(|fault| {
                let others = Self::ALL.into_iter().filter(|other| *other != self);
                others
                    .filter_map(|other| Some((other, decode(other, body).ok()?)))
                    .next()
                    .ok_or(fault)
            })
    }
}
