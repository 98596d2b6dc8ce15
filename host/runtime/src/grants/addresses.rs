//! Which addresses a request may go to: public ones, and those that the operator names.
//!
//! A name can stand for any address, and whoever owns the name decides. Without this, a worker that
//! may reach `https://partner.example` reaches whatever its host can as soon as the partner's name
//! stands for 127.0.0.1 or for the address at which clouds hand out credentials, 169.254.169.254.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

/// Addresses with a common beginning: `10.0.0.0/8`, `fd00::/8`; one address alone is `127.0.0.1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressRange {
    first: IpAddr,
    prefix: u8,
}

impl AddressRange {
    fn contains(&self, address: IpAddr) -> bool {
        let (first, address, width) = match (self.first, address) {
            (IpAddr::V4(first), IpAddr::V4(address)) => (
                u128::from(first.to_bits()),
                u128::from(address.to_bits()),
                32,
            ),
            (IpAddr::V6(first), IpAddr::V6(address)) => (first.to_bits(), address.to_bits(), 128),
            _ => return false,
        };
        let shift = width - u32::from(self.prefix);
        // A shift by all bits is none for the processor.
        first.checked_shr(shift).unwrap_or(0) == address.checked_shr(shift).unwrap_or(0)
    }
}

impl FromStr for AddressRange {
    /// What is wrong with it.
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let first: IpAddr = address
            .parse()
            .map_err(|_| "this is not an IP address or a range of them")?;
        if first.to_canonical() != first {
            return Err("an IPv4 address in the clothes of IPv6 stands for no other range");
        }
        let width: u8 = if first.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Ok(width), str::parse);
        let prefix = prefix.ok().filter(|prefix| *prefix <= width);
        let prefix = prefix.ok_or("this is no length of a prefix (0 to 32, for IPv6 to 128)")?;
        let bits = match first {
            IpAddr::V4(first) => u128::from(first.to_bits()) << 96,
            IpAddr::V6(first) => first.to_bits(),
        };
        if bits.checked_shl(u32::from(prefix)).unwrap_or(0) != 0 {
            return Err("the address has bits behind the prefix, so it is not clear what is meant");
        }
        Ok(Self { first, prefix })
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.prefix)
    }
}

/// Whether a name may stand for this address.
pub(crate) fn may_connect(address: IpAddr, granted: &[AddressRange]) -> bool {
    let address = address.to_canonical();
    let is_granted = |address| granted.iter().any(|range| range.contains(address));
    match embedded(address) {
        Some(inner) => is_public_v4(inner) || is_granted(IpAddr::V4(inner)) || is_granted(address),
        None => is_public(address) || is_granted(address),
    }
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

/// The IPv4 address to which a gateway takes this one: NAT64 (RFC 6052) and 6to4 (RFC 3056).
fn embedded(address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(address) = address else {
        return None;
    };
    let bits = match address.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => [high, low],
        [0x2002, high, low, ..] => [high, low],
        _ => return None,
    };
    let [high, low] = bits.map(u32::from);
    Some(Ipv4Addr::from_bits(high << 16 | low))
}

/// <https://www.iana.org/assignments/iana-ipv4-special-registry>
fn is_public_v4(address: Ipv4Addr) -> bool {
    !matches!(
        address.octets(),
        [0 | 10 | 127, ..]                      // this network, private, loopback
            | [100, 64..=127, ..]               // the provider's own (CGNAT)
            | [169, 254, ..]                    // link-local
            | [168, 63, 129, 16]                // what Azure puts beside 169.254.169.254
            | [172, 16..=31, ..]                // private
            | [192, 0, 0 | 2, _]                // assignments of the protocol, documentation
            | [192, 88, 99, _]                  // relays of 6to4, gone
            | [192, 168, ..]                    // private
            | [198, 18 | 19, ..]                // benchmarks
            | [198, 51, 100, _]                 // documentation
            | [203, 0, 113, _]                  // documentation
            | [224..=255, ..] // multicast, reserved, broadcast
    )
}

/// <https://www.iana.org/assignments/iana-ipv6-special-registry>: what is given out to the public is
/// 2000::/3, less what lies in it for other purposes.
fn is_public_v6(address: Ipv6Addr) -> bool {
    !matches!(
        address.segments(),
        [0..=0x1fff | 0x4000..=0xffff, ..]      // among them ::1, fc00::/7, fe80::/10, ff00::/8
            | [0x2001, 0..=0x1ff, ..]           // assignments of the protocol, Teredo
            | [0x2001, 0xdb8, ..]               // documentation
            | [0x3fff, 0..=0xfff, ..] // documentation
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(address: &str, granted: &[&str]) -> bool {
        let granted: Vec<AddressRange> = granted.iter().map(|text| text.parse().unwrap()).collect();
        may_connect(address.parse().unwrap(), &granted)
    }

    #[test]
    fn public_addresses_may_be_connected_to() {
        for address in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "169.253.255.255",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.1",
            "192.167.255.255",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2606:4700:4700::1111",
            "2a00:1450:4001:81b::200e",
            "2001:200::1",
            "::ffff:1.1.1.1",
            "64:ff9b::1.1.1.1",
            "2002:101:101::1",
        ] {
            assert!(allowed(address, &[]), "{address}");
        }
    }

    #[test]
    fn all_others_may_not() {
        for address in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.0",
            "10.255.255.255",
            "100.64.0.0",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.255",
            "169.254.0.1",
            "169.254.169.254",
            "172.16.0.0",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.0.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.255.255.250",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::7f00:1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::127.0.0.1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:0:4136:e378:8000:63bf:3fff:fdd2",
            "2001:2::1",
            "2001:20::1",
            "2001:db8::1",
            "2002:7f00:1::1",
            "2002:a00:1::",
            "2002:a9fe:a9fe::",
            "3fff::1",
            "5f00::1",
            "fc00::1",
            "fd12:3456:789a::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!allowed(address, &[]), "{address}");
        }
    }

    #[test]
    fn a_range_grants_its_addresses_in_whatever_clothes_and_no_others() {
        let ten = ["10.0.0.0/8"];
        for address in [
            "10.0.0.0",
            "10.255.255.255",
            "::ffff:10.1.2.3",
            "64:ff9b::10.1.2.3",
            "2002:a01:203::1",
        ] {
            assert!(allowed(address, &ten), "{address}");
        }
        for address in ["127.0.0.1", "192.168.0.1", "::1", "::10.0.0.1", "fd00::1"] {
            assert!(!allowed(address, &ten), "{address}");
        }
        assert!(allowed("127.0.0.1", &["127.0.0.1/32"]));
        assert!(!allowed("127.0.0.2", &["127.0.0.1"]));
        assert!(allowed("::1", &["127.0.0.1", "::1"]));
        assert!(allowed("fd00::1", &["fd00::/8"]));
        assert!(!allowed("fc00::1", &["fd00::/8"]));
        assert!(allowed("127.0.0.1", &["0.0.0.0/0"]));
        assert!(!allowed("::1", &["0.0.0.0/0"]));
        assert!(allowed("::1", &["::/0"]));
    }

    #[test]
    fn a_range_shows_itself_as_it_is_written_and_nothing_else_is_one() {
        for text in [
            "10.0.0.0/8",
            "127.0.0.1/32",
            "0.0.0.0/0",
            "fd00::/8",
            "::1/128",
        ] {
            let range: AddressRange = text.parse().unwrap();
            assert_eq!(range.to_string(), text);
        }
        let alone: AddressRange = "10.0.0.7".parse().unwrap();
        assert_eq!(alone.to_string(), "10.0.0.7/32");
        for text in [
            "",
            "10.0.0.0/",
            "10.0.0.0/33",
            "::/129",
            "10.0.0.7/8",
            "0.0.0.1/0",
            "fd00::1/8",
            "10.0/8",
            "localhost",
            "::ffff:10.0.0.0/104",
        ] {
            text.parse::<AddressRange>().unwrap_err();
        }
    }
}
