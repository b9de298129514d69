//! Proxies in front of the control plane: whom they say that they ask for is believed of those that are named.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use axum::extract::ConnectInfo;
use http::{Extensions, HeaderMap};

/// A name in the list is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no address of a proxy: write 10.0.0.7, or a network such as 10.0.0.0/24 or fd00::/8"
)]
pub struct ProxyError(pub String);

/// A network: all addresses that begin with the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    fn read(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.trim().parse().ok()?;
        let most = match address {
            IpAddr::V4(_) => 32,
            IpAddr::V6(_) => 128,
        };
        let bits = match bits {
            Some(bits) => bits.trim().parse().ok().filter(|bits| *bits <= most)?,
            None => most,
        };
        Some(Self { address, bits })
    }

    fn has(self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let differ = u32::from(own) ^ u32::from(other);
                differ.leading_zeros() >= u32::from(self.bits)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let differ = u128::from(own) ^ u128::from(other);
                differ.leading_zeros() >= u32::from(self.bits)
            }
            _ => false,
        }
    }
}

/// The proxies that are believed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Proxies(Vec<Network>);

/// Who is at the other end, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Client {
    pub(crate) address: Option<IpAddr>,
    /// Whether nobody on the way can read along.
    pub(crate) is_sealed: bool,
}

impl Proxies {
    pub(crate) fn new(texts: &[String]) -> Result<Self, ProxyError> {
        let read = |text: &String| Network::read(text).ok_or_else(|| ProxyError(text.clone()));
        texts.iter().map(read).collect::<Result<_, _>>().map(Self)
    }

    fn has(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.has(address))
    }

    /// Who sent a request: the last of those in `X-Forwarded-For` that is none of our proxies, if one of them brought it.
    pub(crate) fn client(&self, headers: &HeaderMap, extensions: &Extensions) -> Client {
        let peer: Option<&ConnectInfo<SocketAddr>> = extensions.get();
        let peer = peer.map(|ConnectInfo(peer)| peer.ip().to_canonical());
        let is_tls = extensions.get::<larder_http::OverTls>().is_some();
        let Some(proxy) = peer.filter(|peer| self.has(*peer)) else {
            return Client {
                address: peer,
                is_sealed: is_tls,
            };
        };
        let said = list(headers, "x-forwarded-for");
        let hops = said.iter().rev();
        let mut hops = hops.map(|hop| hop.parse::<IpAddr>().map(|hop| hop.to_canonical()));
        let client = hops.find(|hop| !hop.as_ref().is_ok_and(|hop| self.has(*hop)));
        let proto = list(headers, "x-forwarded-proto");
        // Who asks through a proxy that does not say for whom is nobody of this machine, though the proxy is.
        let unsaid = match proxy.is_loopback() {
            true => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            false => proxy,
        };
        Client {
            // What is no address comes from the outermost proxy that is believed, or is a lie told to it.
            address: client.and_then(Result::ok).or(Some(unsaid)),
            is_sealed: proto
                .last()
                .is_some_and(|proto| proto.eq_ignore_ascii_case("https")),
        }
    }
}

/// The values of a header, in order, that are separated by commas.
fn list<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a str> {
    let values = headers.get_all(name).iter();
    let values = values.filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(texts: &[&str]) -> Result<Proxies, ProxyError> {
        let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
        Proxies::new(&texts)
    }

    fn client(proxies: &Proxies, peer: &str, forwarded: &[&str], proto: &str) -> Client {
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append("x-forwarded-for", value.parse().unwrap());
        }
        headers.append("x-forwarded-proto", proto.parse().unwrap());
        let mut extensions = Extensions::new();
        extensions.insert(ConnectInfo(SocketAddr::new(peer.parse().unwrap(), 1)));
        proxies.client(&headers, &extensions)
    }

    #[test]
    fn only_proxies_that_are_named_are_believed() {
        let named = proxies(&["10.0.0.0/8", "fd00::1"]).unwrap();
        let address = |peer, forwarded: &[&str]| {
            client(&named, peer, forwarded, "https")
                .address
                .unwrap()
                .to_string()
        };
        assert_eq!(address("192.0.2.1", &["203.0.113.9"]), "192.0.2.1");
        assert_eq!(address("10.1.2.3", &["203.0.113.9"]), "203.0.113.9");
        assert_eq!(address("fd00::1", &["203.0.113.9"]), "203.0.113.9");
        assert_eq!(address("::ffff:10.1.2.3", &["203.0.113.9"]), "203.0.113.9");
        // What the client says itself stands before what the proxies add.
        assert_eq!(
            address("10.1.2.3", &["1.1.1.1, 203.0.113.9"]),
            "203.0.113.9"
        );
        assert_eq!(
            address("10.1.2.3", &["1.1.1.1", "203.0.113.9, 10.9.9.9"]),
            "203.0.113.9"
        );
        for nothing in [&[][..], &["10.2.2.2"], &["unknown"], &["203.0.113.9, x"]] {
            assert_eq!(address("10.1.2.3", nothing), "10.1.2.3");
        }
        // A proxy on this machine makes nobody one of this machine.
        let here = proxies(&["127.0.0.1"]).unwrap();
        for nothing in [&[][..], &["203.0.113.9:5678"]] {
            let asks = client(&here, "127.0.0.1", nothing, "https")
                .address
                .unwrap();
            assert!(!asks.is_loopback(), "{asks}");
        }
        let sealed = |peer, proto| client(&named, peer, &[], proto).is_sealed;
        assert!(sealed("10.1.2.3", "https") && sealed("10.1.2.3", "http, HTTPS"));
        assert!(!sealed("10.1.2.3", "https, http") && !sealed("10.1.2.3", ""));
        assert!(!sealed("192.0.2.1", "https"));
    }

    #[test]
    fn networks_are_read_or_refused() {
        let all = proxies(&["0.0.0.0/0"]).unwrap();
        assert!(all.has([203, 0, 113, 9].into()) && !all.has("::1".parse().unwrap()));
        let half = proxies(&["10.0.0.128/25"]).unwrap();
        assert!(half.has([10, 0, 0, 255].into()) && !half.has([10, 0, 0, 127].into()));
        for wrong in [
            "",
            "proxy",
            "10.0.0.0/33",
            "10.0.0.0/",
            "10.0.0.0/-1",
            "::/129",
        ] {
            assert!(proxies(&[wrong]).is_err(), "{wrong}");
        }
    }
}
