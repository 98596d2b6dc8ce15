//! Payloads between the guest's types and ours: bounded, validated, transcoded.

use bytes::Bytes;
use warren_protocol::{Encoding, Payload, Slip, Stop};

use crate::bindings::warren::worker::types;

/// Hands a payload to the guest in the encoding that it reads.
pub(crate) fn to_guest(
    data: &Payload,
    accepts: Encoding,
    most_bytes: usize,
) -> Result<types::Payload, String> {
    let payload = data.to(accepts).map_err(|error| error.to_string())?;
    let body = payload.to_bytes().map_err(|error| error.to_string())?;
    bounded(body.len(), most_bytes)?;
    Ok(types::Payload {
        content_type: accepts.content_type().to_owned(),
        body: body.to_vec(),
    })
}

/// Takes a payload from the guest. Its bytes are hostile until they have been read.
pub(crate) fn from_guest(payload: types::Payload, most_bytes: usize) -> Result<Payload, String> {
    bounded(payload.body.len(), most_bytes)?;
    let encoding = Encoding::from_content_type(&payload.content_type).ok_or_else(|| {
        let mut content_type = payload.content_type.clone();
        content_type.truncate(content_type.floor_char_boundary(100));
        format!("`{content_type}` is not a content type of the bus: use application/json, application/bson or application/msgpack")
    })?;
    Payload::new(encoding, Bytes::from(payload.body)).map_err(|error| error.to_string())
}

/// Takes a slip from the guest.
pub(crate) fn slip(slip: types::Slip, most_bytes: usize) -> Result<Slip, SlipError> {
    if slip.stops.is_empty() {
        return Err(SlipError::Stops(
            "there is no stop: name at least one".to_owned(),
        ));
    }
    if slip.stops.len() > MAX_STOPS {
        return Err(SlipError::Stops(format!(
            "{} stops; at most {MAX_STOPS} are allowed",
            slip.stops.len()
        )));
    }
    let stops: Vec<Stop> = slip.stops.into_iter().map(Stop::new).collect();
    for stop in &stops {
        stop.address()
            .map_err(|error| SlipError::Stops(error.to_string()))?;
    }
    let data = from_guest(slip.data, most_bytes).map_err(SlipError::Data)?;
    Ok(Slip { stops, data })
}

/// The longest route. A real one has a handful of stops.
const MAX_STOPS: usize = 256;

/// What is wrong with a guest's slip.
pub(crate) enum SlipError {
    Stops(String),
    Data(String),
}

fn bounded(size: usize, most_bytes: usize) -> Result<(), String> {
    if size > most_bytes {
        Err(format!(
            "the payload has {size} bytes; this worker's limit is {most_bytes} (`payload` in its configuration)"
        ))
    } else {
        Ok(())
    }
}
