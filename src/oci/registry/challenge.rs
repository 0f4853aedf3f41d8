//! What a registry wants to know of who asks: the `WWW-Authenticate` header. Pure.
//! Sources: RFC 9110, section 11.6.1; the distribution project's "Token Authentication
//! Specification".

/// One way to authenticate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// User and password with every request.
    Basic,
    /// A token from the server at `realm`.
    Bearer {
        /// The token server's URL.
        realm: String,
        /// How the registry is called there.
        service: Option<String>,
    },
}

/// The challenge to answer among those of a response's headers: a token if one is offered, for
/// then the password goes to the token server alone. `None` if no scheme is known.
pub(super) fn choose<'a>(headers: impl Iterator<Item = &'a str>) -> Option<Challenge> {
    let mut basic = None;
    for (scheme, parameters) in headers.flat_map(parse) {
        let find = |name: &str| {
            let found = parameters.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.clone())
        };
        if scheme.eq_ignore_ascii_case("bearer") {
            if let Some(realm) = find("realm") {
                return Some(Challenge::Bearer { realm, service: find("service") });
            }
        } else if scheme.eq_ignore_ascii_case("basic") {
            basic = Some(Challenge::Basic);
        }
    }
    basic
}

type Parameters = Vec<(String, String)>;

/// The challenges of one header: a scheme, then `name=value` or `name="value"`, separated by
/// commas. Where it stops making sense the rest is left out.
fn parse(header: &str) -> Vec<(String, Parameters)> {
    let mut found: Vec<(String, Parameters)> = Vec::new();
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let (word, after) = token(rest);
        if word.is_empty() {
            return found;
        }
        let value = after.trim_start_matches([' ', '\t']).strip_prefix('=');
        match (value, found.last_mut()) {
            // `Negotiate abc==`: a token instead of parameters ends in "=", nothing follows it.
            (Some(value), Some((_, parameters))) => {
                let Some((text, after)) = quoted(value.trim_start_matches([' ', '\t'])) else {
                    return found;
                };
                parameters.push((word.to_owned(), text));
                rest = after;
            }
            (Some(_), None) => return found,
            (None, _) => {
                found.push((word.to_owned(), Vec::new()));
                rest = after;
            }
        }
    }
}

/// A token (RFC 9110, section 5.6.2) and what follows it.
fn token(text: &str) -> (&str, &str) {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~/".contains(c);
    text.split_at(text.find(|c| !allowed(c)).unwrap_or(text.len()))
}

/// A parameter's value, quoted or not, and what follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let Some(inner) = text.strip_prefix('"') else {
        // Some registries leave out the quotes of a URL.
        let (value, rest) = text.split_at(text.find([',', ' ', '\t']).unwrap_or(text.len()));
        return Some((value.to_owned(), rest));
    };
    let mut value = String::new();
    let mut chars = inner.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &inner[at + 1..])),
            '\\' => value.push(chars.next()?.1),
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>) -> Option<Challenge> {
        let (realm, service) = (realm.to_owned(), service.map(str::to_owned));
        Some(Challenge::Bearer { realm, service })
    }

    #[test]
    fn challenges_are_read() {
        const HUB: &str = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#;
        let cases: Vec<(&[&str], Option<Challenge>)> = vec![
            (&[HUB], bearer("https://auth.docker.io/token", Some("registry.docker.io"))),
            (&[r#"Basic realm="Registry, \"private\"""#], Some(Challenge::Basic)),
            (&["basic"], Some(Challenge::Basic)),
            (&[r#"BEARER Realm = "https://a/t" , service=x"#], bearer("https://a/t", Some("x"))),
            (&["Bearer realm=https://a/t?b=c,service=x"], bearer("https://a/t?b=c", Some("x"))),
            (&[r#"Basic realm="x", Bearer realm="https://a""#], bearer("https://a", None)),
            (&[r#"Basic realm="x""#, r#"Bearer realm="https://a""#], bearer("https://a", None)),
            (&["Negotiate YII=, Basic realm=x"], Some(Challenge::Basic)),
            (&[r#"Bearer service="x""#], None),
            (&["Negotiate"], None),
            (&[r#"Bearer realm="https://a"#], None),
            (&["", ",,,", "=", "\"", "realm=x"], None),
            (&[], None),
        ];
        for (headers, want) in cases {
            assert_eq!(choose(headers.iter().copied()), want, "{headers:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_header_is_too_strange(header in ".{0,200}") {
            choose(std::iter::once(header.as_str()));
        }
    }
}
