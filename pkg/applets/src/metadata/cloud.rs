//! Clouds that tell a machine of itself by HTTP, on an address of its own link.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use kiln_guest::host_name;

use crate::Voice;

use super::Found;
use super::http::{Request, ask};

/// Where all of these clouds have their server.
const SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)), 80);
/// Most keys, names and user data are asked for by name; this is how they are wrapped.
const NOT_FOUND: u16 = 404;

/// One of them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Cloud {
    /// As LinuxKit calls it.
    pub word: &'static str,
    title: &'static str,
    headers: &'static [(&'static str, &'static str)],
    /// Whether a token is asked for first (AWS' version 2).
    token: bool,
    host_name: &'static str,
    keys: &'static str,
    user_data: &'static str,
}

const EC2: Cloud = Cloud {
    word: "",
    title: "",
    headers: &[],
    token: false,
    host_name: "/latest/meta-data/hostname",
    keys: "/latest/meta-data/public-keys/0/openssh-key",
    user_data: "/latest/user-data",
};

/// All that are known.
pub(super) const CLOUDS: &[Cloud] = &[
    Cloud { word: "aws", title: "AWS", token: true, host_name: "/latest/meta-data/local-hostname", ..EC2 },
    Cloud { word: "openstack", title: "OpenStack", ..EC2 },
    Cloud { word: "hetzner", title: "Hetzner", keys: "/latest/meta-data/public-keys", ..EC2 },
    Cloud { word: "metaldata", title: "Metaldata", keys: "/latest/meta-data/public-keys", ..EC2 },
    Cloud {
        word: "gcp",
        title: "GCP",
        headers: &[("Metadata-Flavor", "Google")],
        host_name: "/computeMetadata/v1/instance/hostname",
        keys: "/computeMetadata/v1/instance/attributes/ssh-keys",
        user_data: "/computeMetadata/v1/instance/attributes/userdata",
        ..EC2
    },
    Cloud {
        word: "digitalocean",
        title: "DigitalOcean",
        host_name: "/metadata/v1/hostname",
        keys: "/metadata/v1/public-keys",
        user_data: "/metadata/v1/user-data",
        ..EC2
    },
    Cloud { word: "vultr", title: "Vultr", host_name: "/v1/hostname", keys: "/v1/public-keys", ..EC2 },
];

impl Cloud {
    /// What the cloud says; `None` if this machine is not there.
    pub fn ask(&self, say: Voice<'_>) -> Option<Found> {
        match self.ask_at(SERVER) {
            Ok(found) => found,
            Err(error) => {
                say(&format!("{}: {error}", self.title));
                None
            }
        }
    }

    fn ask_at(&self, server: SocketAddr) -> io::Result<Option<Found>> {
        let mut headers = self.headers.to_vec();
        let token = if self.token { token(server)? } else { None };
        if let Some(token) = &token {
            headers.push(("X-aws-ec2-metadata-token", token));
        }
        let get = |path: &str| -> io::Result<Option<Vec<u8>>> {
            let (status, body) = ask(server, Request { method: "GET", path, headers: &headers })?;
            match status {
                200 => Ok(Some(body)),
                NOT_FOUND => Ok(None),
                other => Err(io::Error::other(format!("`{path}` is answered by status {other}"))),
            }
        };
        // Every machine has a name: who does not tell it is somebody else.
        let Some(name) = get(self.host_name)? else { return Ok(None) };
        let keys = get(self.keys)?.unwrap_or_default();
        let name = host_name::plain(name.trim_ascii());
        let user_data = get(self.user_data)?.filter(|data| !data.is_empty());
        Ok(Some(Found { provider: self.title.to_owned(), user_data, host_name: name, keys: self.read_keys(&keys) }))
    }

    /// A line each, or a JSON list; GCP's have `USER:` in front.
    fn read_keys(&self, text: &[u8]) -> Vec<String> {
        if let Ok(keys) = serde_json::from_slice::<Vec<String>>(text) {
            return keys;
        }
        let text = String::from_utf8_lossy(text);
        let key = |line: &str| match line.split_once(':').filter(|_| self.word == "gcp") {
            Some((_, key)) => key.to_owned(),
            None => line.to_owned(),
        };
        text.lines().map(key).filter(|key| !key.trim().is_empty()).collect()
    }
}

/// An older server has none.
fn token(server: SocketAddr) -> io::Result<Option<String>> {
    let headers = [("X-aws-ec2-metadata-token-ttl-seconds", "300")];
    let (status, body) = ask(server, Request { method: "PUT", path: "/latest/api/token", headers: &headers })?;
    // It goes into a line of the next request.
    let plain = body.len() < 1024 && body.iter().all(u8::is_ascii_graphic);
    Ok((status == 200 && plain).then(|| String::from_utf8_lossy(&body).into_owned()))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// A server that answers as many requests as there are answers, and gives them back.
    fn server(answers: Vec<(&'static str, &'static str)>) -> (SocketAddr, thread::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let thread = thread::spawn(move || {
            let mut requests = vec![];
            for (status, body) in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = vec![];
                while !request.ends_with(b"\r\n\r\n") {
                    let mut byte = [0; 1];
                    stream.read_exact(&mut byte).unwrap();
                    request.extend(byte);
                }
                requests.push(String::from_utf8(request).unwrap());
                write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
            }
            requests
        });
        (address, thread)
    }

    fn cloud(word: &str) -> &'static Cloud {
        CLOUDS.iter().find(|cloud| cloud.word == word).unwrap()
    }

    #[test]
    fn a_server_of_somebody_elses_or_none_at_all_is_no_metadata() {
        let (address, thread) = server(vec![("404 Not Found", "")]);
        assert_eq!(cloud("gcp").ask_at(address).unwrap(), None);
        thread.join().unwrap();
        assert!(cloud("gcp").ask_at(address).is_err());
        let (address, thread) = server(vec![("500 Broken", "")]);
        assert!(cloud("openstack").ask_at(address).unwrap_err().to_string().contains("status 500"));
        thread.join().unwrap();
    }

    #[test]
    fn aws_is_asked_for_a_token_first() {
        let (address, thread) =
            server(vec![("200 OK", "abc=="), ("200 OK", "ip-1.internal\n"), ("404 Not Found", ""), ("200 OK", "data")]);
        let found = cloud("aws").ask_at(address).unwrap().unwrap();
        assert_eq!(
            (found.host_name.as_deref(), found.user_data.as_deref()),
            (Some("ip-1.internal"), Some(&b"data"[..]))
        );
        let requests = thread.join().unwrap();
        assert!(requests[0].starts_with("PUT /latest/api/token HTTP/1.0\r\n"), "{requests:?}");
        assert!(
            requests[3].starts_with("GET /latest/user-data ") && requests[3].contains("-token: abc==\r\n"),
            "{requests:?}"
        );
    }

    #[test]
    fn keys_are_lines_or_a_list() {
        let (address, thread) =
            server(vec![("200 OK", "../bad"), ("200 OK", "me:ssh-rsa A me\nyou:ssh-rsa B\n"), ("404 Not Found", "")]);
        let found = cloud("gcp").ask_at(address).unwrap().unwrap();
        assert_eq!((found.host_name, found.keys), (None, vec!["ssh-rsa A me".to_owned(), "ssh-rsa B".to_owned()]));
        assert!(thread.join().unwrap().iter().all(|request| request.contains("Metadata-Flavor: Google\r\n")));
        assert_eq!(cloud("hetzner").read_keys(br#"["k1", "k2"]"#), ["k1", "k2"]);
        assert_eq!(cloud("hetzner").read_keys(b"from: someone k1\n"), ["from: someone k1"]);
    }
}
