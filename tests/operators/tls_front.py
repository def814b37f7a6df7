"""A TLS end in front of a plain server, as an ingress is: it asks its clients for a certificate too."""

import asyncio
import contextlib
import datetime
import ipaddress
import ssl
import threading

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def write_certificates(folder):
    """Write an authority, a server's certificate for 127.0.0.1 and a client's: `ca.pem`, `server.pem`, `client.pem`."""
    authority_key, authority = _certificate("authority")
    (folder / "ca.pem").write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    for name in ("server", "client"):
        key, certificate = _certificate(name, authority_key, authority)
        raw = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (folder / f"{name}.pem").write_bytes(raw + certificate.public_bytes(serialization.Encoding.PEM))


def _certificate(name, issuer_key=None, issuer=None):
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
    )
    return key, builder.sign(issuer_key or key, hashes.SHA256())


@contextlib.contextmanager
def tls_front(folder, port):
    """Listen on a port of 127.0.0.1 with TLS and hand all on to `port`; gives the port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    context.load_verify_locations(folder / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED

    async def hand_on(reader, writer):
        with contextlib.suppress(OSError), contextlib.closing(writer):
            while piece := await reader.read(65536):
                writer.write(piece)
                await writer.drain()

    async def serve(reader, writer):
        behind_reader, behind_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(hand_on(reader, behind_writer), hand_on(behind_reader, writer))

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    starting = asyncio.run_coroutine_threadsafe(asyncio.start_server(serve, "127.0.0.1", 0, ssl=context), loop)
    yield starting.result().sockets[0].getsockname()[1]
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
