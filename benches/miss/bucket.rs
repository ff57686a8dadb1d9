//! The bucket: a process that answers every `GetObject` at once, or after a while, with an object that no
//! other key has, and with the head that S3 sends. It checks no signature: what signing costs is its
//! sender's.

#![allow(
    clippy::disallowed_methods,
    reason = "a thread a connection, and a delay that is what is simulated"
)]

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;
use std::{io, thread};

/// Between them, uniformly: 8.7 kB on average.
const SIZES: (usize, usize) = (5_000, 12_400);

/// Until the process is ended.
pub fn serve(listen: &str, delay: Duration) {
    let listener = TcpListener::bind(listen).unwrap();
    let noise: Vec<u8> = (0..64 * 1024).map(|n| mixed(n).to_le_bytes()[0]).collect();
    let noise: &'static [u8] = noise.leak();
    for stream in listener.incoming() {
        let stream = stream.unwrap();
        stream.set_nodelay(true).unwrap();
        // It ends where its client hangs up.
        thread::spawn(move || answer_all(stream, noise, delay));
    }
}

fn answer_all(mut stream: TcpStream, noise: &[u8], delay: Duration) -> io::Result<()> {
    let (mut asked, mut part, mut answer) = (Vec::new(), [0; 8 * 1024], Vec::new());
    loop {
        let end = loop {
            if let Some(end) = asked.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            let read = stream.read(&mut part)?;
            if read == 0 {
                return Ok(());
            }
            asked.extend_from_slice(&part[..read]);
        };
        let head = String::from_utf8_lossy(&asked[..end]);
        let target = head.split(' ').nth(1).unwrap_or_default();
        let path = target.split('?').next().unwrap_or_default();
        compose(path, noise, &mut answer);
        asked.drain(..end);
        if delay > Duration::ZERO {
            thread::sleep(delay);
        }
        stream.write_all(&answer)?;
    }
}

/// The whole response for this path: always the same.
fn compose(path: &str, noise: &[u8], answer: &mut Vec<u8>) {
    let seed = path
        .bytes()
        .fold(7, |sum, byte| mixed(sum ^ u64::from(byte)));
    let length = SIZES.0 + seed as usize % (SIZES.1 - SIZES.0);
    let from = (seed >> 32) as usize % (noise.len() - SIZES.1);
    let mut body = b"\x89PNG\r\n\x1a\n".to_vec();
    body.extend_from_slice(&seed.to_le_bytes());
    body.extend_from_slice(&noise[from..from + length - body.len()]);
    let mut sum = flate2::Crc::new();
    sum.update(&body);
    let mut head = String::with_capacity(700);
    write!(
        head,
        "HTTP/1.1 200 OK\r\n\
         x-amz-id-2: Uuag1LuByRx9e6j5Onimru9pO4ZVKnJ2Qz7/C1NPcfTWAtRPfTaOFg{seed:016x}\r\n\
         x-amz-request-id: {seed:016X}\r\n\
         Date: Sun, 22 Nov 2026 20:00:00 GMT\r\n\
         Last-Modified: Sun, 01 Nov 2026 00:00:00 GMT\r\n\
         ETag: \"{seed:016x}{seed:016x}\"\r\n\
         x-amz-checksum-crc32: {}\r\n\
         x-amz-checksum-type: FULL_OBJECT\r\n\
         x-amz-server-side-encryption: AES256\r\n\
         Accept-Ranges: bytes\r\n\
         Content-Type: image/png\r\n\
         Content-Length: {length}\r\n\
         Server: AmazonS3\r\n\r\n",
        base64::Engine::encode(
            &base64::engine::general_purpose::STANDARD,
            sum.sum().to_be_bytes()
        ),
    )
    .unwrap();
    answer.clear();
    answer.extend_from_slice(head.as_bytes());
    answer.extend_from_slice(&body);
}

/// Numbers that look random (splitmix64).
fn mixed(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
