//! DNS messages.

use weir::proto::dns;

use crate::random::Random;
use crate::{Outcome, Target};

/// Questions and answers, whole and spoiled.
pub(crate) struct Messages;

/// `a.test`, answered through an alias with two addresses, with names that point back.
const ANSWER: &[u8] = b"\0\x07\x81\x80\0\x01\0\x03\0\0\0\0\x01a\x04test\0\0\x01\0\x01\
    \xc0\x0c\0\x05\0\x01\0\0\0\x3c\0\x04\x01b\xc0\x0e\
    \xc0\x24\0\x01\0\x01\0\0\0\x3c\0\x04\x0a\0\0\x01\xc0\x24\0\x01\0\x01\0\0\0\x3c\0\x04\x0a\0\0\x02";

impl Target for Messages {
    fn name(&self) -> &'static str {
        "dns"
    }

    fn run(&mut self, random: &mut Random) -> Outcome {
        let mut message = ANSWER.to_vec();
        if dns::answer(&message).map_or(0, |told| told.found.len()) != 2 {
            return Err("a valid answer was not understood".into());
        }
        random.mutate(&mut message, &[b"\xc0\x0c", b"\xff", b"\x3f", b"\0", b"\0\x01\0\x01", b"\x01a", b"\xc0\x24"]);
        let asked = dns::question(&message).map_or(0, |lookup| lookup.name.len());
        match dns::answer(&message) {
            Ok(told) if told.found.len() > 64 || told.lookup.name.len() > 253 => Err("beyond its bounds".into()),
            Ok(told) => Ok(told.found.len() + told.lookup.name.len()),
            Err(_) => Ok(asked),
        }
    }
}
