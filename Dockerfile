# The same image as `make image`: one static binary, CA certificates, uid 65532, no shell.
FROM rust:1.95-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends cmake clang && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN target=$(rustc -vV | sed -n 's/^host: //p') \
 && RUSTFLAGS="-C target-feature=+crt-static" cargo build --release --locked --bin seaworthy --target "$target" \
 && cp "target/$target/release/seaworthy" /seaworthy \
 && printf 'root:x:0:0::/:\nnonroot:x:65532:65532::/:\n' > /passwd && printf 'root:x:0:\nnonroot:x:65532:\n' > /group

FROM scratch
COPY --from=build /passwd /group /etc/
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /seaworthy /seaworthy
USER 65532:65532
ENTRYPOINT ["/seaworthy"]
