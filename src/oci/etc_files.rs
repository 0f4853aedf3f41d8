//! The contents of a container's `/etc/hosts`, `/etc/hostname` and `/etc/resolv.conf`. Pure: the
//! host's files come in as text.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::names::Slug;

/// `/etc/hosts`: Docker's lines, and the container's own name at its pinned addresses.
pub fn hosts(ip: Ipv4Addr, ip6: Option<Ipv6Addr>, hostname: &Slug) -> String {
    let own6 = ip6.map(|ip6| format!("{ip6}\t{hostname}\n")).unwrap_or_default();
    format!(
        "127.0.0.1\tlocalhost\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::\tip6-localnet\n\
         ff00::\tip6-mcastprefix\n\
         ff02::1\tip6-allnodes\n\
         ff02::2\tip6-allrouters\n\
         {ip}\t{hostname}\n\
         {own6}"
    )
}

/// `/etc/hostname`: the name and a newline (hostname(5)).
pub fn hostname(hostname: &Slug) -> String {
    format!("{hostname}\n")
}

/// A container's `/etc/resolv.conf`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvConf {
    /// The file.
    pub text: String,
    /// What the user should know: the container cannot resolve names.
    pub note: Option<String>,
}

/// `/etc/resolv.conf` for a container, from the host's (resolv.conf(5)).
///
/// Kept are `search`, `domain` and `options`, and the name servers a container can reach: no
/// loopback and no link-local ones, which would be others there, and IPv6 ones only with `ipv6`.
/// Where the host has none that stay (as with systemd-resolved's stub at 127.0.0.53), the servers
/// of `resolved`, the text of `/run/systemd/resolve/resolv.conf`, are taken. If there are none
/// either, there is a note instead: no public server is ever asked behind the user's back.
///
/// `internal` gives an empty file: such a network has no way out to ask anyone.
pub fn resolv_conf(host: &str, resolved: Option<&str>, ipv6: bool, internal: bool) -> ResolvConf {
    if internal {
        return ResolvConf { text: String::new(), note: None };
    }
    let mut servers = reachable_servers(host, ipv6);
    if servers.is_empty() {
        servers = resolved.map(|text| reachable_servers(text, ipv6)).unwrap_or_default();
    }
    let mut text = String::new();
    for server in &servers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    for line in directives(host) {
        if let ["search" | "domain" | "options", _, ..] = line.as_slice() {
            text.push_str(&line.join(" "));
            text.push('\n');
        }
    }
    let note = servers.is_empty().then(|| {
        let not = if ipv6 { "loopback ones are not" } else { "loopback and IPv6 ones are not" };
        format!(
            "the host has no name server that a container can reach ({not}): names will not \
             resolve inside"
        )
    });
    ResolvConf { text, note }
}

/// In order, each once.
fn reachable_servers(text: &str, ipv6: bool) -> Vec<IpAddr> {
    let mut servers = Vec::new();
    for line in directives(text) {
        let ["nameserver", address, ..] = line.as_slice() else { continue };
        // An unspecified address means this host (resolv.conf(5) of some libraries).
        if let Ok(ip) = address.parse::<IpAddr>()
            && (ipv6 || ip.is_ipv4())
            && !ip.is_loopback()
            && !ip.is_unspecified()
            && !matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
            && !servers.contains(&ip)
        {
            servers.push(ip);
        }
    }
    servers
}

/// The words of each line that is no comment. A comment begins with `;` or `#` in the first column
/// or, as glibc reads it, anywhere as a word of its own.
fn directives(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines()
        .map(|line| {
            line.split_ascii_whitespace().take_while(|w| !w.starts_with(['#', ';'])).collect()
        })
        .filter(|words: &Vec<&str>| !words.iter().any(|w| w.contains(|c: char| c.is_control())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_names_the_container() {
        let text = hosts(Ipv4Addr::new(192, 168, 7, 2), None, &Slug::new("demo").unwrap());
        assert!(text.starts_with("127.0.0.1\tlocalhost\n::1\tlocalhost "), "{text}");
        assert!(text.ends_with("\n192.168.7.2\tdemo\n"), "{text}");
        let (ip, ip6) = (Ipv4Addr::new(192, 168, 7, 2), "fd00:7::2".parse().unwrap());
        let both = hosts(ip, Some(ip6), &Slug::new("demo").unwrap());
        assert_eq!(both, format!("{text}fd00:7::2\tdemo\n"));
        assert_eq!(hostname(&Slug::new("demo").unwrap()), "demo\n");
    }

    #[test]
    fn reachable_servers_are_kept() {
        let host = "# made by hand\nnameserver 10.0.0.1 # the first\n\tnameserver\t10.0.0.2\n\
            nameserver 10.0.0.1\nnameserver 127.0.0.1\nnameserver ::1\nnameserver fe80::1%eth0\n\
            nameserver 2001:db8::1\nnameserver bogus\nnameserver\nnameserver 0.0.0.0\n\
            ;nameserver 10.9.9.9\nsearch  a.example b.example\noptions ndots:2\n\
            sortlist 10.0.0.0\nsearch\n";
        let got = resolv_conf(host, Some("nameserver 10.5.5.5\n"), false, false);
        let want = "nameserver 10.0.0.1\nnameserver 10.0.0.2\nsearch a.example b.example\n\
            options ndots:2\n";
        assert_eq!(got, ResolvConf { text: want.into(), note: None });
    }

    #[test]
    fn ipv6_servers_are_kept_where_there_is_ipv6() {
        let host =
            "nameserver 2001:db8::1\nnameserver ::1\nnameserver fe80::1\nnameserver 10.0.0.1\n";
        let got = resolv_conf(host, None, true, false);
        assert_eq!(got.text, "nameserver 2001:db8::1\nnameserver 10.0.0.1\n");
        assert_eq!(resolv_conf(host, None, false, false).text, "nameserver 10.0.0.1\n");
    }

    #[test]
    fn resolveds_servers_stand_in_for_its_stub() {
        let host = "nameserver 127.0.0.53\noptions edns0 trust-ad\nsearch lan\n";
        let resolved = "nameserver 192.0.2.1\nnameserver ::1\nnameserver 127.0.0.1\nsearch lan\n";
        let got = resolv_conf(host, Some(resolved), false, false);
        assert_eq!(got.text, "nameserver 192.0.2.1\noptions edns0 trust-ad\nsearch lan\n");
        assert_eq!(got.note, None);
    }

    #[test]
    fn no_public_resolver_is_made_up() {
        for (host, resolved) in [
            ("nameserver 127.0.0.53\n", None),
            ("nameserver 127.0.0.53\n", Some("nameserver 127.0.0.1\nnameserver 2001:db8::1\n")),
            ("", None),
        ] {
            let got = resolv_conf(host, resolved, false, false);
            assert_eq!(got.text, "", "{host}");
            assert!(got.note.is_some(), "{host}");
        }
    }

    #[test]
    fn an_internal_network_has_no_resolver_and_no_note() {
        let got = resolv_conf("nameserver 10.0.0.1\nsearch lan\n", None, false, true);
        assert_eq!(got, ResolvConf { text: String::new(), note: None });
    }
}
