//! What tries to see more than a guest was given. In a sound host it sees nothing.

use std::env;
use std::fs;
use std::io::Write;
use std::net::{TcpListener, TcpStream, ToSocketAddrs, UdpSocket};

use serde_json::{Value, json};

/// Every environment variable and argument: two empty lists.
pub(crate) fn environment() -> Value {
    let variables: Vec<(String, String)> = env::vars().collect();
    let arguments: Vec<String> = env::args().collect();
    json!({ "variables": variables, "arguments": arguments })
}

/// What can be read or written, by path: `{"denied": …}` for each.
pub(crate) fn files() -> Value {
    let root = fs::read_dir("/").map(|entries| entries.count());
    let here = fs::read_dir(".").map(|entries| entries.count());
    json!({
        "/": seen(root),
        ".": seen(here),
        "/etc/passwd": seen(fs::read_to_string("/etc/passwd")),
        "../Cargo.toml": seen(fs::read_to_string("../Cargo.toml")),
        "/tmp/faulty": seen(fs::write("/tmp/faulty", "was here")),
    })
}

/// What can be reached or served on the network: `{"denied": …}` for each.
pub(crate) fn network() -> Value {
    let connect = TcpStream::connect("127.0.0.1:9091")
        .and_then(|mut stream| stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n"));
    let listen = TcpListener::bind("127.0.0.1:0").map(|_| ());
    let datagram = UdpSocket::bind("127.0.0.1:0").map(|_| ());
    let resolve = "localhost:80".to_socket_addrs().map(Iterator::count);
    json!({
        "connect": seen(connect),
        "listen": seen(listen),
        "datagram": seen(datagram),
        "resolve": seen(resolve),
    })
}

fn seen<T: Into<Value>>(result: std::io::Result<T>) -> Value {
    match result {
        Ok(value) => json!({ "seen": value.into() }),
        Err(error) => json!({ "denied": error.to_string() }),
    }
}
