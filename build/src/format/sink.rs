//! Where bytes go: a file, into which the kernel copies large contents by itself, or any stream.

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;

use rustix::fs::copy_file_range;
use rustix::io::Errno;

use crate::tree::Body;

/// Content from here on is copied by the kernel; what is smaller costs less through the buffer.
const KERNEL_COPY_BYTES: u64 = 128 * 1024;

const BUFFER_BYTES: usize = 256 * 1024;

/// Takes the bytes of an output.
pub trait Sink: Write {
    /// Appends all of `body`.
    fn append(&mut self, body: &Body) -> io::Result<()>;

    /// Appends zeros: a hole where the output can have one.
    fn skip(&mut self, len_bytes: u64) -> io::Result<()> {
        io::copy(&mut io::repeat(0).take(len_bytes), self).map(drop)
    }

    /// Puts `bytes` over what was written at `offset_bytes` from the start of the output. Only a file can; the error of all
    /// others is [`Unsupported`](io::ErrorKind::Unsupported).
    fn rewrite(&mut self, _offset_bytes: u64, _bytes: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// What follows is the member `name` of an archive, with so much content: where a sink that works in pieces may begin
    /// one.
    fn begin_member(&mut self, _name: &[u8], _content_bytes: u64) -> io::Result<()> {
        Ok(())
    }
}

/// A file that is written from its start on.
#[derive(Debug)]
pub struct FileSink {
    file: BufWriter<File>,
    kernel_copies: bool,
}

impl FileSink {
    /// Writes to `file`, which is empty.
    pub fn new(file: File) -> Self {
        Self { file: BufWriter::with_capacity(BUFFER_BYTES, file), kernel_copies: true }
    }

    /// The file, with everything written to it.
    pub fn finish(self) -> io::Result<File> {
        let mut file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        // A hole at the end is none until the file has its length.
        let len_bytes = file.stream_position()?;
        if file.metadata()?.len() < len_bytes {
            file.set_len(len_bytes)?;
        }
        Ok(file)
    }

    /// How much of `body` the kernel copied, from its start on. Less than all of it where file systems cannot.
    fn append_by_kernel(&mut self, body: &Body) -> io::Result<u64> {
        let Body::Spooled { spool, start, len } = body else { return Ok(0) };
        self.file.flush()?;
        let content = spool.content()?;
        let mut from = *start;
        let end = start + len;
        while from < end {
            let most = usize::try_from(end - from).unwrap_or(usize::MAX);
            match copy_file_range(content, Some(&mut from), self.file.get_ref(), None, most) {
                Ok(0) | Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM) => {
                    self.kernel_copies = false;
                    break;
                }
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(from - start)
    }
}

impl Write for FileSink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Sink for FileSink {
    fn append(&mut self, body: &Body) -> io::Result<()> {
        let by_kernel = self.kernel_copies && body.len() >= KERNEL_COPY_BYTES;
        let done = if by_kernel { self.append_by_kernel(body)? } else { 0 };
        match body.slice(done, body.len() - done) {
            Some(rest) => pump(&rest, &mut self.file),
            None => Ok(()),
        }
    }

    fn skip(&mut self, len_bytes: u64) -> io::Result<()> {
        let offset = i64::try_from(len_bytes).map_err(|_| io::ErrorKind::FileTooLarge)?;
        self.file.seek(SeekFrom::Current(offset)).map(drop)
    }

    fn rewrite(&mut self, offset_bytes: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.flush()?;
        self.file.get_ref().write_all_at(bytes, offset_bytes)
    }
}

/// Any stream, such as standard output.
#[derive(Debug)]
pub struct StreamSink<W>(pub W);

impl<W: Write> Write for StreamSink<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl<W: Write> Sink for StreamSink<W> {
    fn append(&mut self, body: &Body) -> io::Result<()> {
        pump(body, &mut self.0)
    }
}

fn pump(body: &Body, to: &mut impl Write) -> io::Result<()> {
    let mut buffer = [0; 16 * 1024];
    let mut reader = body.reader();
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok(()),
            len => to.write_all(&buffer[..len])?,
        }
    }
}
