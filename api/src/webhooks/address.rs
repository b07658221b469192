//! Which addresses are of the public internet, and what the others are.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A range that nothing is delivered to: where it begins, the bits that all of it shares, and what it is.
type Range<T> = (T, u32, &'static str);

const fn v4(a: u8, b: u8, c: u8, d: u8) -> Ipv4Addr {
    Ipv4Addr::new(a, b, c, d)
}

const fn v6(a: u16, b: u16, c: u16) -> Ipv6Addr {
    Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0)
}

const V4: [Range<Ipv4Addr>; 15] = [
    (v4(0, 0, 0, 0), 8, "this network (RFC 791)"),
    (v4(10, 0, 0, 0), 8, "private (RFC 1918)"),
    (v4(100, 64, 0, 0), 10, "shared by carriers (RFC 6598)"),
    (v4(127, 0, 0, 0), 8, "loopback (RFC 1122)"),
    // 169.254.169.254 and its neighbours: the metadata of the instance, its clock, its resolver.
    (v4(169, 254, 0, 0), 16, "link-local (RFC 3927)"),
    (v4(172, 16, 0, 0), 12, "private (RFC 1918)"),
    (v4(192, 0, 0, 0), 24, "for protocols (RFC 6890)"),
    (v4(192, 0, 2, 0), 24, "documentation (RFC 5737)"),
    (v4(192, 88, 99, 0), 24, "6to4 relays (RFC 7526)"),
    (v4(192, 168, 0, 0), 16, "private (RFC 1918)"),
    (v4(198, 18, 0, 0), 15, "benchmarks (RFC 2544)"),
    (v4(198, 51, 100, 0), 24, "documentation (RFC 5737)"),
    (v4(203, 0, 113, 0), 24, "documentation (RFC 5737)"),
    (v4(224, 0, 0, 0), 4, "multicast (RFC 5771)"),
    (v4(240, 0, 0, 0), 4, "reserved, or broadcast (RFC 1112, 919)"),
];

/// In the order of looking: the first that matches names an address. What has another address in it is refused whatever
/// that one is: who wants to reach a public one can say so.
const V6: [Range<Ipv6Addr>; 20] = [
    (Ipv6Addr::UNSPECIFIED, 128, "unspecified (RFC 4291)"),
    (Ipv6Addr::LOCALHOST, 128, "loopback (RFC 4291)"),
    (Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96, "an IPv4 address, mapped (RFC 4291)"),
    (Ipv6Addr::UNSPECIFIED, 96, "an IPv4 address, compatible (RFC 4291)"),
    (v6(0x64, 0xff9b, 0), 96, "an IPv4 address, by NAT64 (RFC 6052)"),
    (v6(0x64, 0xff9b, 1), 48, "an IPv4 address, by local NAT64 (RFC 8215)"),
    (v6(0x100, 0, 0), 64, "discarded (RFC 6666)"),
    (v6(0x2001, 0, 0), 32, "an IPv4 address, by Teredo (RFC 4380)"),
    (v6(0x2001, 2, 0), 48, "benchmarks (RFC 5180)"),
    (v6(0x2001, 0x10, 0), 28, "ORCHID (RFC 4843)"),
    (v6(0x2001, 0x20, 0), 28, "ORCHIDv2 (RFC 7343)"),
    (v6(0x2001, 0, 0), 23, "for protocols (RFC 2928)"),
    (v6(0x2001, 0xdb8, 0), 32, "documentation (RFC 3849)"),
    (v6(0x2002, 0, 0), 16, "an IPv4 address, by 6to4 (RFC 3056)"),
    (v6(0x3fff, 0, 0), 20, "documentation (RFC 9637)"),
    // fd00:ec2::254 among them: the metadata of the instance.
    (v6(0xfc00, 0, 0), 7, "private (RFC 4193)"),
    (v6(0xfe80, 0, 0), 10, "link-local (RFC 4291)"),
    (v6(0xfec0, 0, 0), 10, "site-local (RFC 3879)"),
    (v6(0xff00, 0, 0), 8, "multicast (RFC 4291)"),
    (v6(0x5f00, 0, 0), 16, "segments of routes (RFC 9602)"),
];

/// What IANA has given out for global unicast; whatever else there is has no public host.
const GLOBAL_UNICAST: (Ipv6Addr, u32) = (v6(0x2000, 0, 0), 3);

/// Returns what an address is that is not a public one; `None` for those that the internet routes to one host.
pub fn not_public(ip: IpAddr) -> Option<&'static str> {
    match ip {
        IpAddr::V4(ip) => {
            let is_in = |(begin, bits, _): &&Range<Ipv4Addr>| (ip.to_bits() ^ begin.to_bits()) >> (32 - bits) == 0;
            V4.iter().find(is_in).map(|range| range.2)
        }
        IpAddr::V6(ip) => {
            let shares = |begin: Ipv6Addr, bits: u32| (ip.to_bits() ^ begin.to_bits()) >> (128 - bits) == 0;
            let named = V6.iter().find(|(begin, bits, _)| shares(*begin, *bits)).map(|range| range.2);
            let is_global = shares(GLOBAL_UNICAST.0, GLOBAL_UNICAST.1);
            named.or((!is_global).then_some("not global unicast (RFC 4291)"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(ip: &str) -> Option<&'static str> {
        not_public(ip.parse().unwrap())
    }

    #[test]
    fn what_is_not_public_says_what_it_is() {
        for (first, last, said) in [
            ("0.0.0.0", "0.255.255.255", "this network"),
            ("10.0.0.0", "10.255.255.255", "private"),
            ("100.64.0.0", "100.127.255.255", "shared"),
            ("127.0.0.1", "127.255.255.255", "loopback"),
            ("169.254.169.254", "169.254.170.2", "link-local"),
            ("172.16.0.0", "172.31.255.255", "private"),
            ("192.0.0.0", "192.0.0.255", "protocols"),
            ("192.0.2.0", "192.0.2.255", "documentation"),
            ("192.88.99.0", "192.88.99.255", "6to4"),
            ("192.168.0.0", "192.168.255.255", "private"),
            ("198.18.0.0", "198.19.255.255", "benchmarks"),
            ("198.51.100.0", "198.51.100.255", "documentation"),
            ("203.0.113.0", "203.0.113.255", "documentation"),
            ("224.0.0.0", "239.255.255.255", "multicast"),
            ("240.0.0.0", "255.255.255.255", "reserved"),
            ("::", "::", "unspecified"),
            ("::1", "::1", "loopback"),
            ("::ffff:127.0.0.1", "::ffff:8.8.8.8", "mapped"),
            ("::127.0.0.1", "::a9fe:a9fe", "compatible"),
            ("64:ff9b::7f00:1", "64:ff9b::808:808", "NAT64"),
            ("64:ff9b:1::7f00:1", "64:ff9b:1:ffff::", "local NAT64"),
            ("100::", "100::ffff", "discarded"),
            ("2001::", "2001:0:ffff::", "Teredo"),
            ("2001:2::", "2001:2:0:ffff::", "benchmarks"),
            ("2001:10::", "2001:1f::", "ORCHID"),
            ("2001:20::", "2001:2f::", "ORCHIDv2"),
            ("2001:1::1", "2001:1ff:ffff::", "protocols"),
            ("2001:db8::", "2001:db8:ffff::", "documentation"),
            ("2002:7f00:1::", "2002:ffff::", "6to4"),
            ("3fff::", "3fff:fff::", "documentation"),
            ("fc00::", "fd00:ec2::254", "private"),
            ("fe80::1", "febf::1", "link-local"),
            ("fec0::", "feff::", "site-local"),
            ("ff02::1", "ff0e::1", "multicast"),
            ("5f00::", "5f00:ffff::", "segments"),
            ("4000::", "fbff::", "not global unicast"),
            ("200::", "1fff::", "not global unicast"),
        ] {
            for ip in [first, last] {
                assert!(of(ip).is_some_and(|is| is.contains(said)), "{ip}: {:?} is not {said}", of(ip));
            }
        }
    }

    #[test]
    fn the_neighbours_of_each_range_are_public() {
        for ip in [
            "1.0.0.0",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "169.253.255.255",
            "169.255.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "192.0.3.0",
            "192.88.98.255",
            "192.88.100.0",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "198.51.99.255",
            "198.51.101.0",
            "203.0.112.255",
            "203.0.114.0",
            "223.255.255.255",
            "2001:200::",
            "2001:db7:ffff::",
            "2001:db9::",
            "2003::",
            "2600:1f14::1",
            "2a00:1450::1",
            "3ffe:ffff::",
            "3fff:1000::",
        ] {
            assert_eq!(of(ip), None, "{ip}");
        }
    }

    /// Not by the table: what the standard library knows of is refused, over many addresses.
    #[test]
    fn no_address_that_the_standard_library_calls_special_is_public() {
        let mut seed = 7_u128;
        for _ in 0..200_000 {
            seed = seed.wrapping_mul(0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645).wrapping_add(0x9e37_79b9);
            let v4 = Ipv4Addr::from_bits(u32::try_from(seed >> 96).unwrap());
            let special = v4.is_private() || v4.is_loopback() || v4.is_link_local() || v4.is_multicast();
            let special = special || v4.is_documentation() || v4.is_broadcast() || v4.is_unspecified();
            assert!(!special || not_public(v4.into()).is_some(), "{v4}");
            let v6 = Ipv6Addr::from_bits(seed);
            let special = v6.is_unique_local() || v6.is_unicast_link_local() || v6.is_multicast();
            assert!(!special || not_public(v6.into()).is_some(), "{v6}");
            assert!(not_public(v4.to_ipv6_mapped().into()).is_some(), "{v4}");
            assert!(not_public(v4.to_ipv6_compatible().into()).is_some(), "{v4}");
        }
    }
}
