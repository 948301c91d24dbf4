//! Somebody else in the resource group, beside the gateways: asks a simulated Resource Manager.

use serde_json::Value;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

/// Sends one request for a resource of `Microsoft.Compute`, as `disks/d1`, in the group that the tests use.
pub fn call(address: SocketAddr, method: &str, resource: &str, body: &Value) {
    const GROUP: &str = "/subscriptions/0000-1111/resourceGroups/rg/providers/Microsoft.Compute";
    let version = if resource.starts_with("virtual") { "2024-07-01" } else { "2024-03-02" };
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let mut stream = TcpStream::connect(address).unwrap();
    write!(
        stream,
        "{method} {GROUP}/{resource}?api-version={version} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer x\r\n\
         Connection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 20"), "{method} {resource}: {answer}");
}
