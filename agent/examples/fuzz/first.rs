//! What a client says first where its calls are not read: TLS's hello, and HTTP/2 in clear.

use weir::proto::Side;
use weir::proto::hello;
use weir::proto::opening::{Opening, Outcome as Told};

use crate::random::Random;
use crate::{Outcome, Target};

/// Hellos, whole and spoiled.
pub(crate) struct Hello;

/// A record with a hello: no session, one cipher suite, `server_name` a.test, an empty extension behind it.
const HELLO: &[u8] = b"\x16\x03\x01\0\x42\x01\0\0\x3e\x03\x0312345678901234567890123456789012\0\0\x02\x13\x01\x01\0\
    \0\x13\0\0\0\x0b\0\x09\0\0\x06a.test\0\x17\0\0";

impl Target for Hello {
    fn name(&self) -> &'static str {
        "tls hello"
    }

    fn run(&mut self, random: &mut Random) -> Outcome {
        let mut bytes = HELLO.to_vec();
        if hello::server_name(&bytes).as_deref() != Some("a.test") {
            return Err("a valid hello was not understood".into());
        }
        random.mutate(&mut bytes, &[b"\x16\x03\x01", b"\xff\xff", b"\0\0", b"\0\x0b", b"\x01", b"a.test"]);
        match hello::server_name(&bytes).map_or(0, |name| name.len()) {
            len @ 0..=253 => Ok(len),
            len => Err(format!("a name of {len} bytes")),
        }
    }
}

/// First bytes of both sides, whole and spoiled, in pieces.
pub(crate) struct Http2;

const ASKED: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\x3d\x01\x04\0\0\0\x01\
    \x44\x3b/opentelemetry.proto.collector.trace.v1.TraceService/Export\0\0\x05\0\x01\0\0\0\x01\0\0\0\0\0";
const ANSWERED: &[u8] = b"\0\0\0\x04\0\0\0\0\0\0\0\x01\x01\x04\0\0\0\x01\x88\0\0\x05\0\0\0\0\0\x01\0\0\0\0\0";

impl Target for Http2 {
    fn name(&self) -> &'static str {
        "h2 opening"
    }

    fn run(&mut self, random: &mut Random) -> Outcome {
        let (mut asked, mut answered) = (ASKED.to_vec(), ANSWERED.to_vec());
        if feed(&asked, &answered, random) != Told::Exports {
            return Err("a valid export was not understood".into());
        }
        let words: [&[u8]; 6] =
            [b"\0\0\x01", b"\x01\x04\0\0\0\x01", b"\x09", b"\x7f\xff\xff\xff\x7f", b"\x44\x3b", b"\x88"];
        random.mutate(&mut asked, &words);
        random.mutate(&mut answered, &words);
        feed(&asked, &answered, random);
        Ok(asked.len() + answered.len())
    }
}

fn feed(asked: &[u8], answered: &[u8], random: &mut Random) -> Told {
    let mut opening = Opening::default();
    let mut last = Told::Open;
    for (side, bytes) in [(Side::Client, asked), (Side::Server, answered)] {
        for part in bytes.chunks(1 + random.below(40)) {
            last = opening.hear(side, part);
            if last != Told::Open {
                return last;
            }
        }
    }
    last
}
