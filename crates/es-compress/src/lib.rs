//! zlib and zstd compressors for stored events, with bounded decompression.
