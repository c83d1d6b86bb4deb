//! resolv.conf(5) and hosts(5): the host's read, a sandbox's written.
//!
//! Place: the daemon reads the host's files and hands their text here; what comes back goes into
//! the snapshot and into the files laid over a sandbox's `/etc`. Pure. Invariants: nothing in the
//! host's file is an error, what cannot be used is reported; nothing written can smuggle in a line
//! of its own.
//!
//! Sources: resolv.conf(5), hosts(5), RFC 6761 §6.3, glibc `res_init.c` (what is tolerated).

use super::snapshot::ResolverView;
use std::fmt::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr};

/// Names by which a sandbox knows the host where its network lets it reach the host: ours, and
/// what Docker and podman call it.
pub const HOST_ALIASES: [&str; 3] = [
    "host.mossnet.internal",
    "host.docker.internal",
    "host.containers.internal",
];

/// What a host's resolv.conf says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostResolver {
    /// `nameserver` lines in order, each once.
    pub nameservers: Vec<IpAddr>,
    /// `search` (or `domain`) words; the last such line counts.
    pub search: Vec<String>,
    /// `options` words in order, those of all lines.
    pub options: Vec<String>,
    /// What was left out.
    pub warnings: Vec<ResolvWarning>,
}

/// A line, or a word of it, that was left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvWarning {
    /// Line number, from 1.
    pub line: usize,
    /// Why.
    pub reason: LeftOut,
}

/// Why something was left out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LeftOut {
    /// Not a keyword of resolv.conf(5).
    #[error("unknown keyword '{0}'")]
    Keyword(String),
    /// `nameserver` without an address.
    #[error("'{0}' is not an address")]
    Address(String),
    /// A link-local address means nothing without its interface, and ours are other ones.
    #[error("link-local name server '{0}' cannot be asked on behalf of a sandbox")]
    LinkLocal(String),
    /// Not a domain.
    #[error("'{0}' is not a domain")]
    Domain(String),
}

impl fmt::Display for ResolvWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.reason)
    }
}

impl HostResolver {
    /// Reads resolv.conf text. Never fails; see [`Self::warnings`].
    pub fn parse(text: &str) -> Self {
        let mut host = Self::default();
        for (index, line) in text.lines().enumerate() {
            if let Err(reason) = host.read_line(line) {
                let line = index + 1;
                host.warnings.push(ResolvWarning { line, reason });
            }
        }
        host
    }

    fn read_line(&mut self, line: &str) -> Result<(), LeftOut> {
        // The manual has comment marks in the first column only; people indent them.
        if line.trim_start().starts_with(['#', ';']) {
            return Ok(());
        }
        let mut words = line.split_whitespace();
        let Some(keyword) = words.next() else {
            return Ok(());
        };
        let words = words.take_while(|word| !word.starts_with(['#', ';']));
        match keyword {
            "nameserver" => self.read_nameserver(words.take(1).next().unwrap_or_default())?,
            "search" => self.read_search(words)?,
            "domain" => self.read_search(words.take(1))?,
            "options" => self
                .options
                .extend(words.filter(|word| is_word(word)).map(str::to_owned)),
            // Meant for the C library's address sorting only.
            "sortlist" => {}
            other => return Err(LeftOut::Keyword(shorten(other))),
        }
        Ok(())
    }

    fn read_nameserver(&mut self, word: &str) -> Result<(), LeftOut> {
        let (address, zone) = word
            .split_once('%')
            .map_or((word, None), |(a, z)| (a, Some(z)));
        let address: IpAddr = address
            .parse()
            .map_err(|_| LeftOut::Address(shorten(word)))?;
        let link_local = matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
        if zone.is_some() || link_local {
            return Err(LeftOut::LinkLocal(shorten(word)));
        }
        // `nameserver 0.0.0.0` and `::` mean this machine (resolv.conf(5) on many systems).
        let address = match address {
            IpAddr::V4(v4) if v4.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(v6) if v6.is_unspecified() => std::net::Ipv6Addr::LOCALHOST.into(),
            usual => usual,
        };
        if !self.nameservers.contains(&address) {
            self.nameservers.push(address);
        }
        Ok(())
    }

    fn read_search<'a>(&mut self, words: impl Iterator<Item = &'a str>) -> Result<(), LeftOut> {
        let (good, bad): (Vec<_>, Vec<_>) = words.partition(|word| is_domain(word));
        self.search = good
            .into_iter()
            .map(tidy_domain)
            .filter(|d| !d.is_empty())
            .collect();
        bad.first()
            .map_or(Ok(()), |bad| Err(LeftOut::Domain(shorten(bad))))
    }

    /// What the relay is told. Without any name server the C library asks the local machine.
    pub fn view(&self) -> ResolverView {
        let mut nameservers = self.nameservers.clone();
        if nameservers.is_empty() {
            nameservers.push(Ipv4Addr::LOCALHOST.into());
        }
        ResolverView {
            nameservers,
            search: self.search.clone(),
        }
    }
}

/// What was asked to be written and cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolvError {
    /// Not a name that fits a line of hosts(5).
    #[error("host name '{}' is not a name of letters, digits, '-', '_' and '.'", .0.escape_debug())]
    HostName(String),
    /// Not a search domain.
    #[error("search domain '{}' is not a domain", .0.escape_debug())]
    SearchDomain(String),
}

impl ResolvError {
    /// What to do next.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::HostName(_) => "give --add-host NAME:ADDRESS, such as --add-host db:192.0.2.7",
            Self::SearchDomain(_) => {
                "give --dns-search a domain such as corp.example, or '.' for none"
            }
        }
    }
}

/// What decides over a sandbox's resolv.conf.
#[derive(Debug, Clone, Copy, Default)]
pub struct ResolvConf<'a> {
    /// The gateways of the network whose name server it asks; empty without one.
    pub gateways: &'a [IpAddr],
    /// Whether that network has a name service (every one but the default `bridge`).
    pub named: bool,
    /// `--dns`.
    pub dns: &'a [IpAddr],
    /// `--dns-search`; a lone `.` means no search domain.
    pub dns_search: &'a [String],
}

impl ResolvConf<'_> {
    /// The text for the sandbox. As Docker: search domains and options are the host's unless given.
    ///
    /// Of several gateways only one is written: they are the same server, and a stub resolver that
    /// asks it twice takes twice as long to fail. On a network with names, `ndots:0` has `web`
    /// asked as `web` before any search domain is tried (CVE-2025-8283), whatever the host uses.
    pub fn render(&self, host: &HostResolver) -> Result<String, ResolvError> {
        let mut text = String::new();
        for address in self.nameservers(host) {
            let _ = writeln!(text, "nameserver {address}");
        }
        let search = self.search(host)?;
        if !search.is_empty() {
            let _ = writeln!(text, "search {}", search.join(" "));
        }
        let mut options = host.options.clone();
        if self.named {
            options.retain(|option| !option.starts_with("ndots:"));
            options.push("ndots:0".into());
        }
        if !options.is_empty() {
            let _ = writeln!(text, "options {}", options.join(" "));
        }
        Ok(text)
    }

    fn nameservers(&self, host: &HostResolver) -> Vec<IpAddr> {
        if !self.dns.is_empty() {
            return self.dns.to_vec();
        }
        if self.gateways.is_empty() {
            return host.nameservers.clone();
        }
        let v4 = self.gateways.iter().find(|gateway| gateway.is_ipv4());
        v4.or(self.gateways.first()).copied().into_iter().collect()
    }

    fn search(&self, host: &HostResolver) -> Result<Vec<String>, ResolvError> {
        match self.dns_search {
            [] => Ok(host.search.clone()),
            [dot] if dot == "." => Ok(Vec::new()),
            given => given
                .iter()
                .map(|domain| check_search_domain(domain))
                .collect(),
        }
    }
}

/// What decides over a sandbox's `/etc/hosts`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Hosts<'a> {
    /// The host's own file, kept whole, for `--network host`; else the usual first lines.
    pub base: Option<&'a str>,
    /// The sandbox's own addresses.
    pub addresses: &'a [IpAddr],
    /// Its UTS host name.
    pub hostname: &'a str,
    /// Its name, where the host name is another.
    pub name: Option<&'a str>,
    /// `--add-host`: (name, address).
    pub extra: &'a [(String, IpAddr)],
    /// The host where it may be reached, and linked sandboxes: an address of each and its names.
    pub links: &'a [(IpAddr, Vec<String>)],
}

const FIRST_LINES: &str = "127.0.0.1\tlocalhost\n\
    ::1\tlocalhost ip6-localhost ip6-loopback\n\
    fe00::0\tip6-localnet\n\
    ff00::0\tip6-mcastprefix\n\
    ff02::1\tip6-allnodes\n\
    ff02::2\tip6-allrouters\n";

impl Hosts<'_> {
    /// The text for the sandbox. What the user adds stands before the sandbox's own lines, and so
    /// wins over them.
    pub fn render(&self) -> Result<String, ResolvError> {
        let mut text = self.base.unwrap_or(FIRST_LINES).to_owned();
        if !text.ends_with('\n') {
            text.push('\n');
        }
        for (name, address) in self.extra {
            let _ = writeln!(text, "{address}\t{}", check_host_name(name)?);
        }
        for (address, names) in self.links {
            let checked: Result<Vec<_>, _> =
                names.iter().map(|name| check_host_name(name)).collect();
            let _ = writeln!(text, "{address}\t{}", checked?.join(" "));
        }
        if self.base.is_some() {
            return Ok(text);
        }
        let mut names = check_host_name(self.hostname)?.to_owned();
        if let Some(name) = self.name.filter(|name| *name != self.hostname) {
            let _ = write!(names, " {}", check_host_name(name)?);
        }
        // Without a network the host name must still resolve: many a daemon asks for it at start.
        let loopback = [IpAddr::from(Ipv4Addr::LOCALHOST)];
        let own = if self.addresses.is_empty() {
            &loopback
        } else {
            self.addresses
        };
        for address in own {
            let _ = writeln!(text, "{address}\t{names}");
        }
        Ok(text)
    }
}

/// Checks a name for `/etc/hosts`.
pub fn check_host_name(name: &str) -> Result<&str, ResolvError> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if name.is_empty() || name.len() > 253 || !name.bytes().all(legal) || name.starts_with('.') {
        return Err(ResolvError::HostName(name.to_owned()));
    }
    Ok(name)
}

/// Checks a search domain and takes off its final dot.
pub fn check_search_domain(domain: &str) -> Result<String, ResolvError> {
    let tidy = tidy_domain(domain);
    if !is_domain(domain) || tidy.is_empty() {
        return Err(ResolvError::SearchDomain(domain.to_owned()));
    }
    Ok(tidy)
}

fn tidy_domain(domain: &str) -> String {
    domain.trim_end_matches('.').to_owned()
}

/// Generous: whatever cannot be taken for anything else.
fn is_domain(word: &str) -> bool {
    word.len() <= 254 && is_word(word) && !word.starts_with(['#', ';'])
}

fn is_word(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|b| b.is_ascii_graphic())
}

/// A word of unknown length and content, for a message.
fn shorten(word: &str) -> String {
    word.chars().take(64).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests;
