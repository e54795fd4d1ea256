//! Who asked first: a claim of hops, believed as far as they are trusted.
//!
//! Hops are walked from the server outwards: what a trusted one says of where it had the request from counts, and the
//! first that is not trusted is the client. What stands before that was sent by the client itself.

use std::net::IpAddr;

use super::prefix::Prefix;
use crate::model::{Exchange, Forwarded, Hops, Kind, Operation};

/// Headers that are believed of a trusted hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// `X-Forwarded-For`.
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

/// Hops whose word counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    /// Their addresses; none: nobody is believed.
    pub trusted: Vec<Prefix>,
    /// What is believed of them beside the PROXY protocol.
    pub headers: Vec<Header>,
}

/// Why a claim is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ignored {
    /// It was made by a hop that is not trusted.
    Untrusted,
    /// A hop in it is no address, it is cut, or it has more hops than are kept.
    Unusable,
    /// Two headers name two clients.
    Contradicting,
}

impl Proxies {
    /// Puts the client into a call that its server saw, and takes the claims out of any call; `Err`: some were ignored.
    ///
    /// # Errors
    /// Why claims were ignored; the client is then the nearest hop that is proven, or nobody where that is a proxy.
    pub fn settle(&self, exchange: &mut Exchange) -> Result<(), Ignored> {
        let Operation::Http(http) = &mut exchange.call.operation;
        let told = http.way.take();
        // Of a head that was not seen to its end, the word of a proxy may be in the rest.
        if exchange.kind != Kind::Server || (told.is_none() && !exchange.call.truncated) {
            return Ok(());
        }
        let hop = exchange.connection.remote.ip().to_canonical();
        let Some(told) = told else {
            if !self.trusts(hop) {
                return Ok(());
            }
            exchange.client = None;
            return Err(Ignored::Unusable);
        };
        let (client, ignored) = self.client(hop, &told, exchange.call.truncated);
        exchange.client = client;
        ignored.map_or(Ok(()), Err)
    }

    /// The client, as far as it is known, and why claims were ignored.
    fn client(&self, hop: IpAddr, told: &Forwarded, truncated: bool) -> (Option<IpAddr>, Option<Ignored>) {
        if !self.trusts(hop) {
            return (Some(hop), Some(Ignored::Untrusted));
        }
        let lists = [(Header::XForwardedFor, &told.x_forwarded_for), (Header::Forwarded, &told.forwarded)];
        let mut said = lists.into_iter().filter(|(_, hops)| !hops.last.is_empty());
        let hop = match told.proxy {
            Some(source) if !self.trusts(source) => return (Some(source), said.next().map(|_| Ignored::Untrusted)),
            Some(source) => source,
            None => hop,
        };
        let mut found: Option<IpAddr> = None;
        for (_, hops) in said.filter(|(header, _)| self.headers.contains(header)) {
            // The end of a list may have been cut off with the head.
            let Some(client) = self.walk(hops).filter(|_| !truncated) else { return (None, Some(Ignored::Unusable)) };
            if found.is_some_and(|other| other != client) {
                return (None, Some(Ignored::Contradicting));
            }
            found = Some(client);
        }
        (Some(found.unwrap_or(hop)), None)
    }

    fn walk(&self, hops: &Hops) -> Option<IpAddr> {
        for hop in hops.last.iter().rev() {
            let hop = (*hop)?;
            if !self.trusts(hop) {
                return Some(hop);
            }
        }
        // Trusted all the way: the first one asked for itself.
        hops.last.first().copied().flatten().filter(|_| !hops.more)
    }

    fn trusts(&self, hop: IpAddr) -> bool {
        self.trusted.iter().any(|prefix| prefix.holds(hop))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::example;

    fn hops(text: &str) -> Hops {
        let mut hops = Hops::default();
        for hop in text.split_whitespace() {
            hops.add(hop.parse().ok());
        }
        hops
    }

    fn proxies() -> Proxies {
        Proxies {
            trusted: vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()],
            headers: vec![Header::XForwardedFor, Header::Forwarded],
        }
    }

    fn client(proxies: &Proxies, hop: &str, told: Forwarded) -> (Option<String>, Option<Ignored>) {
        let mut call = example::exchange(Kind::Server);
        let mut connection = (*call.connection).clone();
        connection.remote.set_ip(hop.parse().unwrap());
        call.connection = connection.into();
        call.client = Some(call.connection.remote.ip());
        let Operation::Http(http) = &mut call.call.operation;
        http.way = Some(Box::new(told));
        let ignored = proxies.settle(&mut call).err();
        (call.client.map(|ip| ip.to_string()), ignored)
    }

    fn x(list: &str) -> Forwarded {
        Forwarded { x_forwarded_for: hops(list), ..Forwarded::default() }
    }

    #[test]
    fn the_nearest_that_is_not_trusted_is_the_client() {
        let some = |ip: &str| Some(ip.to_owned());
        for (hop, told, expected) in [
            // Forged by the client, appended by two proxies.
            ("10.0.0.1", x("1.1.1.1 203.0.113.7 10.0.0.2"), (some("203.0.113.7"), None)),
            ("10.0.0.1", x("bad 203.0.113.7"), (some("203.0.113.7"), None)),
            ("10.0.0.1", x("10.0.0.9 10.0.0.2"), (some("10.0.0.9"), None)),
            ("10.0.0.1", x("203.0.113.7 bad"), (None, Some(Ignored::Unusable))),
            ("10.0.0.1", x("10.0.0.9 bad 10.0.0.2"), (None, Some(Ignored::Unusable))),
            ("192.0.2.1", x("203.0.113.7"), (some("192.0.2.1"), Some(Ignored::Untrusted))),
        ] {
            assert_eq!(client(&proxies(), hop, told.clone()), expected, "{hop} {told:?}");
        }
        let none = Proxies::default();
        assert_eq!(client(&none, "10.0.0.1", x("203.0.113.7")), (some("10.0.0.1"), Some(Ignored::Untrusted)));
    }

    #[test]
    fn two_headers_must_agree() {
        let both = |one: &str, two: &str| Forwarded { forwarded: hops(two), ..x(one) };
        let same = both("203.0.113.7", "203.0.113.7 10.0.0.2");
        assert_eq!(client(&proxies(), "10.0.0.1", same), (Some("203.0.113.7".to_owned()), None));
        let forged = both("203.0.113.7", "1.1.1.1");
        assert_eq!(client(&proxies(), "10.0.0.1", forged.clone()), (None, Some(Ignored::Contradicting)));
        let one = Proxies { headers: vec![Header::XForwardedFor], ..proxies() };
        assert_eq!(client(&one, "10.0.0.1", forged), (Some("203.0.113.7".to_owned()), None));
    }

    #[test]
    fn the_proxy_protocol_goes_first() {
        let proxy = |source: &str, list: &str| Forwarded { proxy: source.parse().ok(), ..x(list) };
        let some = |ip: &str| Some(ip.to_owned());
        assert_eq!(client(&proxies(), "10.0.0.1", proxy("203.0.113.7", "")), (some("203.0.113.7"), None));
        // The client behind it forges a header; a proxy behind it does not.
        let forged = proxy("203.0.113.7", "1.1.1.1");
        assert_eq!(client(&proxies(), "10.0.0.1", forged), (some("203.0.113.7"), Some(Ignored::Untrusted)));
        assert_eq!(client(&proxies(), "10.0.0.1", proxy("10.0.0.2", "203.0.113.7")), (some("203.0.113.7"), None));
        let untrusted = proxy("203.0.113.7", "");
        assert_eq!(client(&proxies(), "192.0.2.1", untrusted), (some("192.0.2.1"), Some(Ignored::Untrusted)));
    }

    #[test]
    fn a_head_that_was_cut_says_nothing_of_its_client() {
        for (hop, told, expected) in [
            ("10.0.0.1", Some(x("203.0.113.7")), (None, Some(Ignored::Unusable))),
            ("10.0.0.1", None, (None, Some(Ignored::Unusable))),
            ("192.0.2.1", None, (Some("192.0.2.1".to_owned()), None)),
        ] {
            let mut call = example::exchange(Kind::Server);
            let mut connection = (*call.connection).clone();
            connection.remote.set_ip(hop.parse().unwrap());
            call.connection = connection.into();
            call.client = hop.parse().ok();
            call.call.truncated = true;
            let Operation::Http(http) = &mut call.call.operation;
            http.way = told.map(Box::new);
            let ignored = proxies().settle(&mut call).err();
            assert_eq!((call.client.map(|ip| ip.to_string()), ignored), expected, "{hop}");
        }
    }

    #[test]
    fn a_list_longer_than_what_is_kept_is_known_where_it_ends_early() {
        let trusted = vec!["10.0.0.2"; 40].join(" ");
        assert_eq!(client(&proxies(), "10.0.0.1", x(&trusted)), (None, Some(Ignored::Unusable)));
        let forged = format!("{} 203.0.113.7", vec!["1.1.1.1"; 40].join(" "));
        assert_eq!(client(&proxies(), "10.0.0.1", x(&forged)).0.as_deref(), Some("203.0.113.7"));
    }
}
