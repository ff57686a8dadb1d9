//! S3 alone: what only HTTP, signatures and STS can get wrong.
