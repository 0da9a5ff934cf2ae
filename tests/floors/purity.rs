//! The places that may use unsafe code, clocks, sockets and locks.

use crate::source::SOURCES;

#[test]
fn unsafe_code_lives_in_one_file() {
    for file in &*SOURCES {
        let has = file
            .tokens
            .iter()
            .any(|token| token == "unsafe" || token == "unsafe_code");
        let may = ["net/sys.rs", "net/mod.rs", "lib.rs"].contains(&file.name.as_str());
        assert!(!has || may, "unsafe code in {}", file.name);
        let word = file.tokens.iter().any(|token| token == "unsafe");
        assert!(!word || file.name == "net/sys.rs", "unsafe code in {}", file.name);
    }
}

/// The parsers are pure: they use no clock, socket, lock or log. Admission has no clock of its own.
#[test]
fn what_is_said_to_be_pure_is_pure() {
    let of_the_world: &[&str] = &[
        "SystemTime",
        "TcpStream",
        "UdpSocket",
        "TcpListener",
        "UnixStream",
        "tokio",
        "thread",
        "println",
        "eprintln",
        "rustix",
        "libc",
    ];
    for file in &*SOURCES {
        let (is_wire, is_limit) = (file.floor() == "wire", file.floor() == "limit");
        if !is_wire && !is_limit || file.is_test() {
            continue;
        }
        let body = file.without_tests();
        for word in of_the_world {
            assert!(!body.iter().any(|token| token == word), "{} names {word}", file.name);
        }
        let reads_the_clock = body.windows(4).any(|four| four == ["Instant", ":", ":", "now"]);
        assert!(!reads_the_clock, "{} reads the clock", file.name);
        let locks = body.iter().any(|token| token == "Mutex" || token == "RwLock");
        assert!(!locks || is_limit, "{} locks", file.name);
    }
}

/// All random numbers come from `net::random`: they can't be guessed, and a test can set the seed. A hasher of the
/// standard library promises neither.
#[test]
fn random_numbers_come_from_one_source() {
    let hasher_as_source = ["RandomState", ":", ":", "new", "(", ")", ".", "hash_one"];
    for file in &*SOURCES {
        let asks_the_system = file.tokens.iter().any(|token| token == "getrandom");
        assert!(
            !asks_the_system || file.name == "net/random.rs",
            "{} asks the operating system for random numbers",
            file.name
        );
        let hashes = file
            .tokens
            .windows(hasher_as_source.len())
            .any(|tokens| tokens == hasher_as_source);
        assert!(!hashes, "{} draws random numbers from a hasher", file.name);
    }
}

/// A relay's clock can be set by a test, so a relay reads the time from nothing else.
#[test]
fn a_relay_reads_no_clock_but_its_own() {
    for file in &*SOURCES {
        let body = file.without_tests();
        let reads_the_clock = body.windows(4).any(|four| four == ["Instant", ":", ":", "now"]);
        let may = file.floor() != "relay" || file.is_test();
        assert!(!reads_the_clock || may, "{} reads the clock", file.name);
    }
}

/// The wall clock may jump, so no time is measured with it. It only stamps lines and shows when something happened.
#[test]
fn the_wall_clock_is_shown_and_never_reckoned_with() {
    let shows = [
        "telemetry/log/format.rs",
        "telemetry/log/queue.rs",
        "control/reload.rs",
        "live/process.rs",
        "live/reloads.rs",
        "admin/scrape.rs",
    ];
    for file in &*SOURCES {
        let names_it = file.without_tests().iter().any(|token| token == "SystemTime");
        assert!(
            !names_it || shows.contains(&file.name.as_str()),
            "{} asks for the time of day",
            file.name
        );
    }
}
