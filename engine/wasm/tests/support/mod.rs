//! Guests made on the spot: modules and components assembled from text.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, dead_code)]

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// A module of WASI preview 1.
pub fn module(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap()
}

/// A component of one of the worlds below, from the module that implements it.
pub fn component(world: &str, text: &str) -> Vec<u8> {
    let mut bytes = wat::parse_str(text).unwrap();
    let mut resolve = Resolve::default();
    let package = resolve.push_str("guest.wit", WIT).unwrap();
    let world = resolve.select_world(&[package], Some(world)).unwrap();
    embed_component_metadata(&mut bytes, &resolve, world, StringEncoding::UTF8).unwrap();
    ComponentEncoder::default().validate(true).module(&bytes).unwrap().encode().unwrap()
}

/// Says its arguments and variables, each ended by a NUL, and `hello`.
pub const HELLO: &str = r#"(module
  (import "wasi_snapshot_preview1" "args_sizes_get" (func $args_sizes (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "args_get" (func $args (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "environ_sizes_get" (func $env_sizes (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "environ_get" (func $env (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 64) "\n")
  (data (i32.const 80) "hello\n")
  (data (i32.const 96) "to stderr\n")
  (func $say (param $fd i32) (param $at i32) (param $len i32)
    (i32.store (i32.const 16) (local.get $at))
    (i32.store (i32.const 20) (local.get $len))
    (drop (call $write (local.get $fd) (i32.const 16) (i32.const 1) (i32.const 24))))
  (func (export "_start")
    (drop (call $args_sizes (i32.const 0) (i32.const 4)))
    (drop (call $args (i32.const 1024) (i32.const 2048)))
    (call $say (i32.const 1) (i32.const 2048) (i32.load (i32.const 4)))
    (call $say (i32.const 1) (i32.const 64) (i32.const 1))
    (drop (call $env_sizes (i32.const 0) (i32.const 4)))
    (drop (call $env (i32.const 1024) (i32.const 8192)))
    (call $say (i32.const 1) (i32.const 8192) (i32.load (i32.const 4)))
    (call $say (i32.const 1) (i32.const 64) (i32.const 1))
    (call $say (i32.const 2) (i32.const 96) (i32.const 10))
    (call $say (i32.const 1) (i32.const 80) (i32.const 6))))"#;

/// Says `up`, and never ends.
pub const UP: &str = r#"(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "\10\00\00\00\03\00\00\00")
  (data (i32.const 16) "up\n")
  (func (export "_start")
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 32)))
    (loop $again (br $again))))"#;

/// Opens the file that its first argument names below the first directory it has, to be read (`r`) or made and written (`w`, its second
/// argument), and ends with the number of the error (WASI preview 1, `errno`).
pub const OPEN: &str = r#"(module
  (import "wasi_snapshot_preview1" "args_get" (func $args (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_open" (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (func $length (param $at i32) (result i32)
    (local $n i32)
    (loop $next
      (if (i32.load8_u (i32.add (local.get $at) (local.get $n)))
        (then (local.set $n (i32.add (local.get $n) (i32.const 1))) (br $next))))
    (local.get $n))
  (func (export "_start")
    (local $path i32) (local $writes i32) (local $error i32)
    (drop (call $args (i32.const 1024) (i32.const 2048)))
    (local.set $path (i32.load (i32.const 1028)))
    (local.set $writes (i32.eq (i32.load8_u (i32.load (i32.const 1032))) (i32.const 119)))
    (local.set $error (call $open (i32.const 3) (i32.const 1) (local.get $path) (call $length (local.get $path))
      (local.get $writes) ;; create
      (select (i64.const 64) (i64.const 2) (local.get $writes)) (i64.const 0) (i32.const 0) (i32.const 8)))
    (if (local.get $error) (then (call $exit (local.get $error))))
    (i32.store (i32.const 16) (i32.const 4096))
    (i32.store (i32.const 20) (i32.const 64))
    (if (local.get $writes)
      (then
        (i32.store (i32.const 16) (local.get $path))
        (i32.store (i32.const 20) (call $length (local.get $path)))
        (call $exit (call $write (i32.load (i32.const 8)) (i32.const 16) (i32.const 1) (i32.const 24))))
      (else
        (local.set $error (call $read (i32.load (i32.const 8)) (i32.const 16) (i32.const 1) (i32.const 24)))
        (if (local.get $error) (then (call $exit (local.get $error))))
        (i32.store (i32.const 20) (i32.load (i32.const 24)))
        (drop (call $write (i32.const 1) (i32.const 16) (i32.const 1) (i32.const 24)))))))"#;

/// Asks for 64 MiB of memory; ends with 3 when it does not get them.
pub const GROW: &str = r#"(module
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (func (export "_start")
    (if (i32.eq (memory.grow (i32.const 1024)) (i32.const -1)) (then (call $exit (i32.const 3))))))"#;

/// Writes to each page of the 256 MiB that it has, which no limit of growing sees.
pub const FILL: &str = r#"(module
  (memory (export "memory") 1)
  (table 10 funcref)
  (func (export "_start")
    (local $at i32)
    (drop (memory.grow (i32.const 255)))
    (loop $next
      (i32.store (local.get $at) (i32.const 1))
      (local.set $at (i32.add (local.get $at) (i32.const 4096)))
      (br_if $next (i32.lt_u (local.get $at) (i32.const 16777216))))))"#;

/// Runs for ever.
pub const LOOP: &str = r#"(module (memory (export "memory") 1) (func (export "_start") (loop $again (br $again))))"#;

/// Traps.
pub const TRAP: &str = r#"(module (memory (export "memory") 1) (func (export "_start") unreachable))"#;

/// Ends with 7.
pub const EXIT: &str = r#"(module
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (func (export "_start") (call $exit (i32.const 7))))"#;

/// Says `a component` and fails: of the world `command`.
pub const COMMAND: &str = r#"(module
  (import "wasi:cli/stdout@0.2.0" "get-stdout" (func $stdout (result i32)))
  (import "wasi:io/streams@0.2.0" "[method]output-stream.blocking-write-and-flush" (func $write (param i32 i32 i32 i32)))
  (memory (export "memory") 1)
  (data (i32.const 64) "a component\n")
  (func (export "wasi:cli/run@0.2.0#run") (result i32)
    (call $write (call $stdout) (i32.const 64) (i32.const 12) (i32.const 0))
    (i32.const 1)))"#;

/// Answers requests by the first letter of their path: `l` runs for ever, `t` traps, `g` asks for 64 MiB, `n` does not answer; all others
/// get `hello` and how many requests this instance has seen. Of the world `function`.
pub const FUNCTION: &str = r#"(module
  (import "wasi:http/types@0.2.0" "[method]incoming-request.path-with-query" (func $path (param i32 i32)))
  (import "wasi:http/types@0.2.0" "[constructor]fields" (func $fields (result i32)))
  (import "wasi:http/types@0.2.0" "[constructor]outgoing-response" (func $response (param i32) (result i32)))
  (import "wasi:http/types@0.2.0" "[method]outgoing-response.set-status-code" (func $status (param i32 i32) (result i32)))
  (import "wasi:http/types@0.2.0" "[method]outgoing-response.body" (func $body (param i32 i32)))
  (import "wasi:http/types@0.2.0" "[method]outgoing-body.write" (func $stream (param i32 i32)))
  (import "wasi:http/types@0.2.0" "[static]outgoing-body.finish" (func $finish (param i32 i32 i32 i32)))
  (import "wasi:http/types@0.2.0" "[static]response-outparam.set" (func $set (param i32 i32 i32 i32 i64 i32 i32 i32 i32)))
  (import "wasi:io/streams@0.2.0" "[method]output-stream.blocking-write-and-flush" (func $write (param i32 i32 i32 i32)))
  (import "wasi:io/streams@0.2.0" "[resource-drop]output-stream" (func $drop_stream (param i32)))
  (memory (export "memory") 1)
  (global $seen (mut i32) (i32.const 48))
  (data (i32.const 64) "hello ?\n")
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 4096))
  (func (export "wasi:http/incoming-handler@0.2.0#handle") (param $request i32) (param $out i32)
    (local $kind i32) (local $answer i32) (local $content i32) (local $to i32)
    (call $path (local.get $request) (i32.const 0))
    (local.set $kind (i32.load8_u (i32.add (i32.load (i32.const 4)) (i32.const 1))))
    (if (i32.eq (local.get $kind) (i32.const 108)) (then (loop $again (br $again))))
    (if (i32.eq (local.get $kind) (i32.const 116)) (then unreachable))
    (if (i32.eq (local.get $kind) (i32.const 110)) (then return))
    (if (i32.eq (local.get $kind) (i32.const 103))
      (then (if (i32.eq (memory.grow (i32.const 1024)) (i32.const -1)) (then unreachable))))
    (global.set $seen (i32.add (global.get $seen) (i32.const 1)))
    (i32.store8 (i32.const 70) (global.get $seen))
    (local.set $answer (call $response (call $fields)))
    (drop (call $status (local.get $answer) (i32.const 200)))
    (call $body (local.get $answer) (i32.const 16))
    (local.set $content (i32.load (i32.const 20)))
    (call $set (local.get $out) (i32.const 0) (local.get $answer)
      (i32.const 0) (i64.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))
    (call $stream (local.get $content) (i32.const 16))
    (local.set $to (i32.load (i32.const 20)))
    (call $write (local.get $to) (i32.const 64) (i32.const 8) (i32.const 16))
    (call $drop_stream (local.get $to))
    (call $finish (local.get $content) (i32.const 0) (i32.const 0) (i32.const 128))))"#;

/// What of WASI 0.2 the guests above use, in the words of its interfaces.
const WIT: &str = r"
package flt:guest;
world command { import wasi:cli/stdout@0.2.0; export wasi:cli/run@0.2.0; }
world function { import wasi:http/types@0.2.0; export wasi:http/incoming-handler@0.2.0; }

package wasi:io@0.2.0 {
  interface error { resource error; }
  interface streams {
    use error.{error};
    variant stream-error { last-operation-failed(error), closed }
    resource output-stream { blocking-write-and-flush: func(contents: list<u8>) -> result<_, stream-error>; }
  }
}
package wasi:cli@0.2.0 {
  interface stdout { use wasi:io/streams@0.2.0.{output-stream}; get-stdout: func() -> output-stream; }
  interface run { run: func() -> result; }
}
package wasi:http@0.2.0 {
  interface types {
    use wasi:io/streams@0.2.0.{output-stream};
    record dns-error-payload { rcode: option<string>, info-code: option<u16> }
    record tls-alert-received-payload { alert-id: option<u8>, alert-message: option<string> }
    record field-size-payload { field-name: option<string>, field-size: option<u32> }
    variant error-code {
      DNS-timeout, DNS-error(dns-error-payload), destination-not-found, destination-unavailable, destination-IP-prohibited,
      destination-IP-unroutable, connection-refused, connection-terminated, connection-timeout, connection-read-timeout,
      connection-write-timeout, connection-limit-reached, TLS-protocol-error, TLS-certificate-error,
      TLS-alert-received(tls-alert-received-payload), HTTP-request-denied, HTTP-request-length-required,
      HTTP-request-body-size(option<u64>), HTTP-request-method-invalid, HTTP-request-URI-invalid, HTTP-request-URI-too-long,
      HTTP-request-header-section-size(option<u32>), HTTP-request-header-size(option<field-size-payload>),
      HTTP-request-trailer-section-size(option<u32>), HTTP-request-trailer-size(field-size-payload), HTTP-response-incomplete,
      HTTP-response-header-section-size(option<u32>), HTTP-response-header-size(field-size-payload),
      HTTP-response-body-size(option<u64>), HTTP-response-trailer-section-size(option<u32>),
      HTTP-response-trailer-size(field-size-payload), HTTP-response-transfer-coding(option<string>),
      HTTP-response-content-coding(option<string>), HTTP-response-timeout, HTTP-upgrade-failed, HTTP-protocol-error,
      loop-detected, configuration-error, internal-error(option<string>)
    }
    resource fields { constructor(); }
    resource incoming-request { path-with-query: func() -> option<string>; }
    resource outgoing-body {
      write: func() -> result<output-stream>;
      finish: static func(this: outgoing-body, trailers: option<fields>) -> result<_, error-code>;
    }
    resource outgoing-response {
      constructor(headers: fields);
      set-status-code: func(status-code: u16) -> result;
      body: func() -> result<outgoing-body>;
    }
    resource response-outparam {
      set: static func(param: response-outparam, response: result<outgoing-response, error-code>);
    }
  }
  interface incoming-handler {
    use types.{incoming-request, response-outparam};
    handle: func(request: incoming-request, response-out: response-outparam);
  }
}
";
