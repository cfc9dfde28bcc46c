use std::fs;
use std::path::Path;
use std::process::Command;

use super::*;

fn write(folder: &Path, files: &[(&str, &str)]) {
    for (name, text) in files {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

fn content(metadata: &Metadata, file: &str) -> Option<String> {
    let path = TreePath::from_user(file).unwrap();
    Some(String::from_utf8(metadata.files.get(&path)?.clone()).unwrap())
}

#[test]
fn what_cannot_be_metadata_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    assert!(matches!(Metadata::read(&path.join("nowhere")), Err(MetadataError::Read { .. })));
    assert!(matches!(Metadata::read(path), Err(MetadataError::NoUserData { .. })));
    assert!(matches!(Metadata::read(Path::new("/dev/null")), Err(MetadataError::Kind { .. })));
    write(path, &[("user-data", "x"), ("large", "")]);
    fs::File::options().write(true).open(path.join("large")).unwrap().set_len(MAX_BYTES).unwrap();
    assert!(matches!(Metadata::read(path), Err(MetadataError::TooMuch { .. })));
    fs::remove_file(path.join("large")).unwrap();
    std::os::unix::fs::symlink(path, path.join("loop")).unwrap();
    assert!(matches!(Metadata::read(path), Err(MetadataError::TooMuch { .. })));
    fs::remove_file(path.join("loop")).unwrap();
    Metadata::read(path).unwrap();
    assert!(Metadata::of_data(&vec![0; (16 << 20) + 1]).is_err());
}

#[test]
fn data_has_both_names_and_a_number_that_changes_with_it() {
    let one = Metadata::of_data(b"#cloud-config\n").unwrap();
    for file in ["user-data", "config"] {
        assert_eq!(content(&one, file).as_deref(), Some("#cloud-config\n"));
    }
    let id = content(&one, "meta-data").unwrap();
    assert!(id.starts_with("instance-id: kiln-") && id.len() == 35, "{id}");
    assert_ne!(content(&Metadata::of_data(b"").unwrap(), "meta-data"), Some(id));
}

#[test]
fn a_folder_keeps_what_it_has_and_gets_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let files =
        [("config", "{}"), ("meta-data", "instance-id: own\n"), ("network-config", "version: 2\n"), ("a/b", "c")];
    write(folder.path(), &files);
    let metadata = Metadata::read(folder.path()).unwrap();
    for (name, text) in files {
        assert_eq!(content(&metadata, name).as_deref(), Some(text));
    }
    assert_eq!(content(&metadata, "user-data").as_deref(), Some("{}"));
    assert_eq!(metadata.files.len(), 5);
}

#[test]
fn others_read_the_cd_and_its_bytes_are_always_the_same() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &[("data", "hello: world\n")]);
    let metadata = Metadata::read(&folder.path().join("data")).unwrap();
    let bytes = metadata.iso().unwrap();
    assert!(bytes == Metadata::of_data(b"hello: world\n").unwrap().iso().unwrap());
    let iso = folder.path().join("data.iso");
    fs::write(&iso, &bytes).unwrap();
    let told = |program: &str, words: &[&str]| {
        let output = Command::new(program).args(words).arg(&iso).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let about = told("blkid", &["-p", "-o", "export"]);
    assert!(about.contains("LABEL=cidata\n") && about.contains("TYPE=iso9660\n"), "{about}");
    for (view, names) in
        [("-R", ["/user-data", "/meta-data", "/config"]), ("-J", ["/user-data", "/meta-data", "/config"])]
    {
        let list = told("isoinfo", &["-f", view, "-i"]);
        assert!(names.iter().all(|name| list.lines().any(|line| line == *name)), "{view}: {list}");
    }
    assert_eq!(told("isoinfo", &["-R", "-x", "/user-data", "-i"]), "hello: world\n");
}
