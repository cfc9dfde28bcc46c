use std::io::Write;
use std::net::TcpListener;
use std::thread;

use super::*;

/// A server on this machine that gives each path's answer, and says nothing to others; ends with the test.
fn server(answers: &'static [(&'static str, &'static str)]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            let mut request = [0; 4096];
            let len = connection.read(&mut request).unwrap_or_default();
            let request = String::from_utf8_lossy(&request[..len]).into_owned();
            let path = request.split(' ').nth(1).unwrap_or_default();
            let answer = answers.iter().find(|(known, _)| *known == path).map_or("", |(_, answer)| answer);
            // The client may have gone.
            let _ = connection.write_all(answer.as_bytes());
        }
    });
    format!("http://{address}")
}

fn chain(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {}", chain(source)))
}

#[test]
fn what_is_no_configuration_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.yml");
    let read = |file: &Path| SourceReader::default().read(file);
    assert!(matches!(read(&file), Err(SourceError::Unreadable { .. })));
    std::fs::write(&file, b"\xff").unwrap();
    assert!(matches!(read(&file), Err(SourceError::NoText(_))));
    File::create(&file).unwrap().set_len(MAX_TEXT_BYTES as u64 + 1).unwrap();
    assert!(matches!(read(&file), Err(SourceError::TooLong(_))));
    assert!(matches!(read(folder.path()), Err(SourceError::Unreadable { .. })));
}

#[test]
fn a_server_cannot_do_what_it_likes() {
    let server = server(&[
        ("/gone", "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"),
        ("/circle", "HTTP/1.1 302 Found\r\nlocation: /circle\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"),
        ("/short", "HTTP/1.1 200 OK\r\ncontent-length: 100\r\nconnection: close\r\n\r\ninit: []"),
        (
            "/local",
            "HTTP/1.1 302 Found\r\nlocation: file:///etc/passwd\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
        ),
        ("/noise", "SSH-2.0-none\r\n"),
    ]);
    for (path, expected) in [
        ("/gone", "the server answers 404 Not Found"),
        ("/circle", "redirected more than 5 times"),
        ("/short", "the server cannot be reached"),
        ("/local", "the server answers 302 Found"),
        ("/noise", "the server cannot be reached"),
        ("/nothing", "the server cannot be reached"),
    ] {
        let url = format!("{server}{path}");
        let error = chain(&SourceReader::default().read(Path::new(&url)).unwrap_err());
        assert!(error.starts_with(&format!("cannot get `{url}`: {expected}")), "{error}");
    }
    let offline = SourceReader { offline: true, ..SourceReader::default() };
    let error = chain(&offline.read(Path::new(&server)).unwrap_err());
    assert!(error.contains("--offline"), "{error}");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://user:secret@{}/x.yml", listener.local_addr().unwrap());
    drop(listener);
    let error = chain(&SourceReader::default().read(Path::new(&url)).unwrap_err());
    assert!(!error.contains("secret") && error.contains("cannot be reached"), "{error}");
}

#[test]
fn an_endless_answer_is_cut() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let sender = thread::spawn(move || {
        let (mut connection, _) = listener.accept().unwrap();
        let mut request = [0; 4096];
        assert!(connection.read(&mut request).unwrap() > 0);
        connection.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
        let zeros = vec![b' '; 1 << 20];
        while connection.write_all(&zeros).is_ok() {}
    });
    let error = chain(&SourceReader::default().read(Path::new(&url)).unwrap_err());
    assert!(error.contains("longer than 16777216 bytes"), "{error}");
    sender.join().unwrap();
}

#[test]
fn a_text_from_a_server_includes_its_neighbours_and_never_a_local_file() {
    let server = server(&[
        ("/sub/a.yml", "HTTP/1.1 200 OK\r\ncontent-length: 8\r\nconnection: close\r\n\r\ninit: []"),
        ("/b.yml", "HTTP/1.1 200 OK\r\ncontent-length: 10\r\nconnection: close\r\n\r\nkernel: {}"),
        ("/etc/passwd", "HTTP/1.1 200 OK\r\ncontent-length: 6\r\nconnection: close\r\n\r\nremote"),
    ]);
    let reader = SourceReader::default();
    let first = reader.read(Path::new(&format!("{server}/sub/a.yml"))).unwrap();
    assert_eq!((first.text.as_str(), first.folder.clone()), ("init: []", None));
    let second = reader.include(&first, "../b.yml").unwrap();
    assert_eq!((second.name.as_str(), second.text.as_str()), (format!("{server}/b.yml").as_str(), "kernel: {}"));
    assert_eq!(reader.include(&first, "/etc/passwd").unwrap().text, "remote");
    for name in ["file:///etc/passwd", "ftp://x/y", "http://"] {
        let error = reader.include(&first, name).unwrap_err();
        assert!(matches!(error, SourceError::Include { .. }), "{name}: {error}");
    }
}

#[test]
fn a_file_includes_what_lies_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("b.yml"), "init: []").unwrap();
    let from = |name: &str, folder: Option<&Path>| YamlSource {
        name: name.into(),
        text: String::new(),
        folder: folder.map(Path::to_owned),
    };
    let reader = SourceReader { working_folder: folder.path().into(), ..SourceReader::default() };
    let file = from("a.yml", Some(folder.path()));
    let included = reader.include(&file, "./b.yml").unwrap();
    assert_eq!((included.text.as_str(), included.folder.as_deref()), ("init: []", Some(folder.path())));
    assert_eq!(reader.include(&from("-", None), "b.yml").unwrap().text, "init: []");
    for name in ["-", ""] {
        assert!(matches!(reader.include(&file, name), Err(SourceError::Include { .. })));
    }
    assert!(matches!(reader.include(&file, "c.yml"), Err(SourceError::Unreadable { .. })));
}
