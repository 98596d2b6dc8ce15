//! What a plugin may do to its host and its neighbours, and what it may not, with real guests
//! (`guests/`, `tests/guests/`) and with hand-written components where no compiler would help.

#![allow(
    missing_docs,
    reason = "the names of the tests are their documentation"
)]

#[cfg(test)]
mod runtime {
    mod bus;
    mod capabilities;
    mod faults;
    mod fetch;
    mod host;
    mod http;
    mod isolation;
    mod keyvalue;
    mod limits;
    mod load;
    mod outgoing;
    #[path = "../../../../tests/src/postgres.rs"]
    mod postgres;
    mod reach;
    mod readme;
    mod reuse;
    mod sql;
}
