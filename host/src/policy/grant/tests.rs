use super::*;

#[test]
fn hosts_and_ports_are_read_in_one_form() {
    for (text, shown) in [
        ("Example.COM:80", "example.com:80"),
        ("127.0.0.1:0", "127.0.0.1:0"),
        ("[0:0::1]:65535", "[::1]:65535"),
        ("Example.COM.:80", "example.com:80"),
        ("localhost.:80", "localhost:80"),
        ("[fe80:0::1%eth0]:80", "[fe80::1%eth0]:80"),
        ("[fe80::1%2]:80", "[fe80::1%2]:80"),
        ("[::1%1]:80", "[::1]:80"),
        ("[2001:db8::1%eth0]:80", "[2001:db8::1]:80"),
    ] {
        assert_eq!(text.parse::<HostPort>().unwrap().to_string(), shown);
    }
    for text in [
        "",
        ":",
        "host",
        "host:",
        ":80",
        "host:65536",
        "host:-1",
        "host:+1",
        "::1:80",
        "[127.0.0.1]:80",
        "a b:80",
        "a..b:80",
        "1.2.3:80",
        "host:80:90",
        "\0:1",
        ".:80",
        "host..:80",
        "127.0.0.1.:80",
        "[fe80::1%]:80",
        "[fe80::1%0]:80",
        "[fe80::1%a%b]:80",
        "[fe80::1%a b]:80",
        "[127.0.0.1%lo]:80",
        "fe80::1%lo:80",
        "host%lo:80",
    ] {
        assert!(text.parse::<HostPort>().is_err(), "{text:?}");
    }
}

#[test]
fn targets_are_read_in_one_form() {
    for (text, shown) in [
        ("Example.COM", "example.com"),
        ("Example.COM:80", "example.com:80"),
        ("*.Example.com:443", "*.example.com:443"),
        ("127.0.0.1", "127.0.0.1"),
        ("[0::1]", "[::1]"),
        ("[0::1]:80", "[::1]:80"),
        ("[::ffff:10.0.0.1]:80", "10.0.0.1:80"),
        ("10.1.2.3/8", "10.0.0.0/8"),
        ("10.0.0.0/8:5432", "10.0.0.0/8:5432"),
        ("fd00::1/8", "fd00::/8"),
        ("[fd00::]/8:53", "fd00::/8:53"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("Example.com.:443", "example.com:443"),
        ("*.Example.com.", "*.example.com"),
        ("[fe80::0:1%eth0]", "[fe80::1%eth0]"),
        ("[fe80::1%2]:80", "[fe80::1%2]:80"),
        ("[::1%lo]:80", "[::1]:80"),
    ] {
        let target: Target = text.parse().unwrap();
        assert_eq!(target.to_string(), shown);
        assert_eq!(shown.parse::<Target>(), Ok(target));
    }
    for text in [
        "",
        ":80",
        "host:",
        "host:65536",
        "::1",
        "::1:80",
        "[::1",
        "[::1]80",
        "[1.2.3.4]",
        "10.0.0.0/33",
        "10.0.0.0/",
        "10.0.0.0/8:x",
        "name/8",
        "*",
        "*:80",
        "a.*.b",
        "a b",
    ] {
        assert!(text.parse::<Target>().is_err(), "{text:?}");
    }
}

#[test]
fn a_pattern_covers_what_is_beneath_it_and_not_itself() {
    let matches = |pattern: &str, name| pattern.parse::<NamePattern>().unwrap().matches(name);
    assert!(matches("*.example.com", "a.example.com"));
    assert!(matches("*.example.com", "a.b.example.com"));
    assert!(!matches("*.example.com", "example.com"));
    assert!(!matches("*.example.com", "badexample.com"));
    assert!(!matches("example.com", "a.example.com"));
    assert!(matches("*", "anything"));
    assert!(matches("example.com.", "example.com") && matches("example.com", "example.com."));
    assert!(matches("*.example.com.", "a.example.com."));
    assert!(!matches("*.example.com.", "example.com."));
    for text in [
        "", ".", "*.", "*..", "a..", "**", "*a", "a.*", "a b", "1.2.3.4",
    ] {
        assert!(text.parse::<NamePattern>().is_err(), "{text:?}");
    }
}

#[test]
fn local_addresses_are_numbers() {
    let address: LocalAddress = "[::1]:80".parse().unwrap();
    assert_eq!(address.to_string(), "[::1]:80");
    let zoned: LocalAddress = "[fe80::1%7]:80".parse().unwrap();
    assert_eq!(zoned.to_string(), "[fe80::1%7]:80");
    let loopback = zone::index_of("lo").expect("there is an interface `lo`");
    let named: LocalAddress = "[fe80::1%lo]:80".parse().unwrap();
    assert_eq!(named.to_string(), format!("[fe80::1%{loopback}]:80"));
    let error = "[fe80::1%no-such-one]:80".parse::<LocalAddress>();
    let error = error.unwrap_err().to_string();
    assert!(error.contains("no such network interface"), "{error}");
    let error = "localhost:80".parse::<LocalAddress>().unwrap_err();
    assert!(error.to_string().contains("is a number"), "{error}");
    assert!("127.0.0.1".parse::<LocalAddress>().is_err());
}

#[test]
fn directories_are_read_in_one_form() {
    for (text, shown) in [
        ("data:/data", "data:/data"),
        ("/a:b:/data/:ro", "/a:b:/data:ro"),
        (".://x//y:rw", ".:/x/y"),
        ("/srv:/", "/srv:/"),
        ("/srv:/data:links", "/srv:/data:links"),
    ] {
        assert_eq!(text.parse::<DirGrant>().unwrap().to_string(), shown);
    }
    for text in [
        "",
        "data",
        "data:",
        ":/data",
        "data:data",
        "data:/a/../b",
        "data:/a/.",
        "data:/a\0",
        "data:/a:rx",
    ] {
        assert!(text.parse::<DirGrant>().is_err(), "{text:?}");
    }
}

#[test]
fn variables_and_functions_are_read() {
    let variable: Variable = "K=a=b".parse().unwrap();
    assert_eq!(variable.value.as_deref(), Some("a=b"));
    assert_eq!("K".parse::<Variable>().unwrap().value, None);
    assert!("=v".parse::<Variable>().is_err() && "".parse::<Variable>().is_err());
    let matches = |pattern: &str, name| pattern.parse::<FunctionPattern>().unwrap().matches(name);
    assert!(matches("kv.*", "kv.get") && matches("*", "x") && matches("kv", "kv"));
    assert!(!matches("kv.*", "kv") && !matches("kv", "kv.get"));
    assert!("a*b".parse::<FunctionPattern>().is_err());
}
