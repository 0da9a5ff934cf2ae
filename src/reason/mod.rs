//! Why a client got no tunnel, and why an open connection ended. There are two closed lists; each is one table with a
//! row per reason.
//!
//! A row has everything that is fixed about its reason: the word that the answer, the log, the metrics and the advice
//! share, what the client gets, and the text for the documentation. A new reason is a new row.

pub mod close;
pub mod reject;
mod table_macro;

#[cfg(test)]
mod tests {
    use super::close::CloseReason;
    use super::reject::RejectReason;

    fn assert_distinct_words(words: &[&str]) {
        for (n, word) in words.iter().enumerate() {
            assert!(
                word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'),
                "{word}"
            );
            assert!(!words[..n].contains(word), "{word} twice");
        }
    }

    #[test]
    fn each_reason_has_a_word_of_its_own() {
        assert_distinct_words(&RejectReason::ALL.map(RejectReason::word));
        assert_distinct_words(&CloseReason::ALL.map(CloseReason::word));
    }

    #[test]
    fn each_reason_says_what_happened_and_what_the_client_gets() {
        for row in RejectReason::ALL.map(RejectReason::row) {
            assert!(
                row.meaning.ends_with('.') && !row.client_gets().is_empty(),
                "{}",
                row.word
            );
        }
        for row in CloseReason::ALL.map(CloseReason::row) {
            assert!(
                row.meaning.ends_with('.') && !row.client_gets().is_empty(),
                "{}",
                row.word
            );
        }
        let gets = [
            CloseReason::Idle,
            CloseReason::Ghost,
            CloseReason::Protocol,
            CloseReason::Client,
        ];
        assert_eq!(
            gets.map(|reason| reason.row().client_gets()),
            [
                "1001",
                "1001 no pong",
                "1002, naming what RFC 6455 forbids",
                "the client's own"
            ]
        );
    }

    #[test]
    fn a_client_that_breaks_a_limit_or_the_protocol_gets_a_close_frame() {
        for reason in [
            CloseReason::MessageRate,
            CloseReason::MessageSize,
            CloseReason::Protocol,
        ] {
            assert!(reason.frame().is_some(), "{}", reason.word());
        }
    }
}
