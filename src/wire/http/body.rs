//! The body of a reply, however it is framed: RFC 9112, sections 6.3 and 7.1.

/// Reads one body, piece by piece.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BodyRead(Framing);

/// Whether more of a body is to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyState {
    /// The body has ended, or the most that the caller wants has been read.
    Done,
    /// More of it follows.
    More,
}

/// Why bytes are not a valid body. The text is for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyFault {
    /// Not a chunk size of 1 to 16 hexadecimal digits.
    #[error("malformed chunk size")]
    ChunkSize,
    /// A chunk is longer than its size says, a CR or LF is alone, or a line contains a control byte.
    #[error("malformed chunk")]
    Chunk,
    /// A chunk extension or the trailer section is larger than 8 KiB.
    #[error("chunk extension or trailers larger than 8 KiB")]
    TooLong,
}

impl BodyRead {
    /// No body, whatever the headers say: that of a 304.
    pub fn none() -> Self {
        Self(Framing::None)
    }

    /// A body of `length` bytes.
    pub fn length(length: u64) -> Self {
        Self(Framing::Length { length, left: length })
    }

    /// A body in chunks.
    pub fn chunked() -> Self {
        Self(Framing::Chunked(Chunked {
            at: At::Size,
            left: 0,
            line: 0,
        }))
    }

    /// A body that ends with the stream.
    pub fn until_close() -> Self {
        Self(Framing::UntilClose)
    }

    /// Reads the next `bytes` and appends the content in them to `out`, until `out` holds `max` bytes. Bytes after the
    /// end of the body are ignored. To be called with no bytes first, since a body may be `Done` before it begins.
    pub fn feed(&mut self, bytes: &[u8], out: &mut Vec<u8>, max: usize) -> Result<BodyState, BodyFault> {
        let room = max.saturating_sub(out.len());
        let state = match &mut self.0 {
            Framing::None => BodyState::Done,
            Framing::UntilClose => {
                out.extend_from_slice(&bytes[..bytes.len().min(room)]);
                BodyState::More
            }
            Framing::Length { left, .. } => {
                *left -= take(bytes, *left, room, out);
                if *left == 0 { BodyState::Done } else { BodyState::More }
            }
            Framing::Chunked(chunked) => chunked.feed(bytes, out, max)?,
        };
        Ok(if out.len() >= max { BodyState::Done } else { state })
    }

    /// Whether the body is complete if the stream ends now.
    pub fn at_end_of_stream(&self) -> bool {
        match &self.0 {
            Framing::None | Framing::UntilClose => true,
            Framing::Length { left, .. } => *left == 0,
            Framing::Chunked(chunked) => chunked.at == At::End,
        }
    }

    /// Appends the framing headers for `content`, and `content`, to `answer`, which ends with its last header. The
    /// connection is to be closed after it. `content` is the part of this body that was read. If that is not all of it,
    /// the client can tell: the content is shorter than its length, or its last chunk is missing.
    pub fn write(&self, content: &[u8], is_whole: bool, answer: &mut Vec<u8>) {
        let length = match &self.0 {
            Framing::Length { length, .. } => Some(*length),
            Framing::Chunked(_) if is_whole => Some(content.len() as u64),
            Framing::Chunked(_) | Framing::None | Framing::UntilClose => None,
        };
        if let Some(length) = length {
            answer.extend_from_slice(format!("Content-Length: {length}\r\n").as_bytes());
        }
        let lacks_last_chunk = length.is_none() && !is_whole;
        if lacks_last_chunk {
            answer.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
        }
        answer.extend_from_slice(b"\r\n");
        // An empty chunk would be the last one.
        if lacks_last_chunk && !content.is_empty() {
            answer.extend_from_slice(format!("{:x}\r\n", content.len()).as_bytes());
            answer.extend_from_slice(content);
            answer.extend_from_slice(b"\r\n");
        } else {
            answer.extend_from_slice(content);
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Framing {
    None,
    Chunked(Chunked),
    Length { length: u64, left: u64 },
    UntilClose,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Chunked {
    at: At,
    /// The size as read so far; then the bytes of the chunk's data that are still to come.
    left: u64,
    /// Bytes read of this line, or of the whole trailer section.
    line: usize,
}

/// What the next byte belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// A digit of the size, or the byte that ends it.
    Size,
    /// Blanks after the size: some servers pad it.
    Padding,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    /// The first byte of a trailer line, or the empty line's CR.
    Trailers,
    Trailer,
    TrailerLf,
    LastLf,
    End,
}

impl Chunked {
    fn feed(&mut self, mut bytes: &[u8], out: &mut Vec<u8>, max: usize) -> Result<BodyState, BodyFault> {
        while self.at != At::End {
            let room = max.saturating_sub(out.len());
            // Bytes after the last one that is wanted are not looked at: whether a fault in them is found would depend
            // on the split.
            if room == 0 {
                return Ok(BodyState::Done);
            }
            let [first, rest @ ..] = bytes else {
                return Ok(BodyState::More);
            };
            if self.at != At::Data {
                self.step(*first)?;
                bytes = rest;
                continue;
            }
            let before = out.len();
            self.left -= take(bytes, self.left, room, out);
            bytes = &bytes[out.len() - before..];
            if self.left == 0 {
                self.at = At::DataCr;
            }
        }
        Ok(BodyState::Done)
    }

    /// One byte that is not data.
    fn step(&mut self, byte: u8) -> Result<(), BodyFault> {
        self.line += 1;
        if self.line > MAX_LINE {
            return Err(BodyFault::TooLong);
        }
        self.at = match (self.at, byte) {
            (At::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') if self.line <= 16 => {
                let digit = char::from(byte).to_digit(16).expect("it is a hexadecimal digit");
                self.left = self.left << 4 | u64::from(digit);
                At::Size
            }
            (At::Size, b'\r' | b' ' | b'\t' | b';') if self.line > 1 => after_size(byte),
            (At::Size, _) => return Err(BodyFault::ChunkSize),
            (At::Padding, b'\r' | b' ' | b'\t' | b';') => after_size(byte),
            (At::Extension | At::Trailer, b'\t' | 0x20..=0x7e | 0x80..) => self.at,
            (At::Extension, b'\r') => At::SizeLf,
            (At::SizeLf, b'\n') => {
                self.line = 0;
                if self.left == 0 { At::Trailers } else { At::Data }
            }
            (At::DataCr, b'\r') => At::DataLf,
            (At::DataLf, b'\n') => {
                self.line = 0;
                At::Size
            }
            (At::Trailers, b'\r') => At::LastLf,
            (At::Trailers, 0x21..=0x7e) => At::Trailer,
            (At::Trailer, b'\r') => At::TrailerLf,
            (At::TrailerLf, b'\n') => At::Trailers,
            (At::LastLf, b'\n') => At::End,
            _ => return Err(BodyFault::Chunk),
        };
        Ok(())
    }
}

fn after_size(byte: u8) -> At {
    match byte {
        b'\r' => At::SizeLf,
        b';' => At::Extension,
        _ => At::Padding,
    }
}

/// Appends as many of `bytes` as both `left` and `room` allow, and returns how many.
fn take(bytes: &[u8], left: u64, room: usize, out: &mut Vec<u8>) -> u64 {
    let count = usize::try_from(left).unwrap_or(usize::MAX).min(room).min(bytes.len());
    out.extend_from_slice(&bytes[..count]);
    u64::try_from(count).expect("no buffer is longer than a u64 counts")
}

/// The most bytes of a chunk's size line, and of all trailers together.
const MAX_LINE: usize = 8 * 1024;

#[cfg(test)]
mod tests;
