"""Whatever a recording comes as, it becomes pieces that are all of it; what is none is refused in plain words."""

import random
import struct
from array import array
from itertools import pairwise
from pathlib import Path

import av
import pytest

from baatcheet.audio.pieces import RATE, Decoded, Decoding, decode
from baatcheet.jobs.isolation import Refused, Sandbox, SandboxFailed
from tests.audio import sounds

FORMATS = {
    "wav": 44_100,
    "mp3": 44_100,
    "m4a": 44_100,
    "mp4": 48_000,
    "ogg": 48_000,
    "opus": 48_000,
    "flac": 96_000,
    "webm": 48_000,
    "aac": 22_050,
    "mka": 8_000,
}
MEMORY = 600_000_000
RESIDENT = 250_000_000  # bytes that a child may hold, however hostile the file


def decoded(path: Path, *, piece_seconds: float = 300, longest: float = 14_400) -> Decoded:
    folder = path.parent / f"{path.name}.pieces"
    folder.mkdir()
    order = Decoding(str(path), str(folder), piece_seconds, longest, "Too long.")
    return decode(order, lambda _percent, _phrase: None)


def outcome(path: Path) -> Decoded | str:
    """What became of it, or why nothing did."""
    try:
        return decoded(path)
    except Refused as refused:
        return str(refused)


def refusal(path: Path) -> str:
    with pytest.raises(Refused) as refused:
        decoded(path)
    return str(refused.value)


def check_whole(found: Decoded) -> None:
    """The pieces are all of the recording, one after another, and each file is its piece."""
    assert found.pieces[0].first == 0
    assert all(one.last == other.first for one, other in pairwise(found.pieces))
    assert found.pieces[-1].last == round(found.seconds * RATE)
    for piece in found.pieces:
        assert len(sounds.samples_of(Path(piece.path))) == max(RATE, piece.last - piece.first)


@pytest.mark.parametrize("ending", FORMATS)
def test_every_usual_form_is_decoded(tmp_path: Path, ending: str) -> None:
    path = sounds.make(tmp_path / f"talk.{ending}", 3.5, sounds.talk, rate=FORMATS[ending])
    found = decoded(path)
    assert abs(found.seconds - 3.5) < 0.2
    assert found.warning is None
    check_whole(found)


def test_a_long_one_is_cut_in_its_pauses(tmp_path: Path) -> None:
    found = decoded(sounds.make(tmp_path / "talk.wav", 61.3, sounds.talk), piece_seconds=10)
    check_whole(found)
    assert len(found.pieces) == 7
    # A pause is in the third second of each three.
    assert all(2 < piece.end % 3 < 3 for piece in found.pieces[:-1])
    assert all(piece.end - piece.start <= 10 for piece in found.pieces)


def test_what_is_cut_is_what_was_said(tmp_path: Path) -> None:
    path = sounds.make(tmp_path / "noise.wav", 25.25, sounds.noise)
    found = decoded(path, piece_seconds=10)
    joined = [value for piece in found.pieces for value in sounds.samples_of(Path(piece.path))]
    assert joined == list(sounds.samples_of(path))


def test_it_is_cut_in_the_same_places_every_time(tmp_path: Path) -> None:
    path = sounds.make(tmp_path / "talk.mp3", 40, sounds.talk, rate=44_100)
    first = decoded(path, piece_seconds=10)
    (tmp_path / "again").mkdir()
    path = path.rename(tmp_path / "again" / "talk.mp3")
    again = decoded(path, piece_seconds=10)
    assert [(one.first, one.last) for one in first.pieces] == [(one.first, one.last) for one in again.pieces]


@pytest.mark.parametrize("layout", ["7.1", "5.1", "stereo", "hexadecagonal"])
def test_many_channels_at_a_high_rate_become_one_at_ours(tmp_path: Path, layout: str) -> None:
    path = sounds.make(tmp_path / "many.wav", 1.5, sounds.tone, rate=192_000, layout=layout)
    found = decoded(path)
    assert abs(found.seconds - 1.5) < 0.01
    check_whole(found)
    assert found.pieces[0].audible


def test_the_sound_of_a_video_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "video.mp4"
    _video(path, with_sound=True)
    assert abs(decoded(path).seconds - 1) < 0.1


def test_a_video_without_sound_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "video.mp4"
    _video(path, with_sound=False)
    assert refusal(path) == "The file has no sound track: there is only pictures in it."


def _video(path: Path, *, with_sound: bool) -> None:
    with av.open(str(path), "w") as target:
        pictures = target.add_stream("mpeg4", rate=10)
        pictures.width = pictures.height = 64
        pictures.pix_fmt = "yuv420p"
        sound = target.add_stream("aac", rate=16_000, layout="mono") if with_sound else None
        for _ in range(10):
            target.mux(pictures.encode(av.VideoFrame(64, 64, "yuv420p")))
        target.mux(pictures.encode(None))
        if sound is not None:
            resampler = av.AudioResampler(format="fltp", layout="mono", rate=16_000, frame_size=1024)
            samples = sounds.tone(0, 16_000).tobytes()
            for frame in resampler.resample(sounds.frame_of(samples, 16_000, "mono", 16_000, 0)):
                target.mux(sound.encode(frame))
            target.mux(sound.encode(None))


def test_silence_is_refused_and_tells_how_much(tmp_path: Path) -> None:
    path = sounds.make(tmp_path / "silence.wav", 10, sounds.silence)
    assert refusal(path) == "Nothing can be heard in the recording: all of its 10.0 s are silent."


def late(second: int, rate: int) -> "array[int]":
    return sounds.tone(second, rate) if second > 21 else sounds.silence(second, rate)


def test_a_silent_piece_of_a_recording_is_marked(tmp_path: Path) -> None:
    path = sounds.make(tmp_path / "late.wav", 30, late)
    audible = [piece.audible for piece in decoded(path, piece_seconds=10).pieces]
    assert audible[:2] == [False, False]
    assert audible[-1]


def test_a_blink_of_sound_is_a_piece_that_an_engine_takes(tmp_path: Path) -> None:
    found = decoded(sounds.make(tmp_path / "blink.wav", 0.05))
    assert found.seconds == 0.05
    check_whole(found)


def test_what_is_too_long_is_refused_before_all_of_it_was_read(tmp_path: Path) -> None:
    path = sounds.make(tmp_path / "long.wav", 30)
    with pytest.raises(Refused, match=r"^Too long\.$"):
        decoded(path, longest=10)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00" * 5_000,
        b"just a text that calls itself a recording\n" * 100,
        b"%PDF-1.7\n" + bytes(range(256)) * 20,
        b"RIFF\xff\xff\xff\xffWAVE",
        b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
        b"ffconcat version 1.0\nfile /etc/passwd\n",
        b"\x1aE\xdf\xa3" + bytes(300),
        b"OggS" + bytes(300),
        b"fLaC" + bytes(300),
        random.Random(1).randbytes(50_000),
    ],
    ids=[
        "empty",
        "zeros",
        "text",
        "pdf",
        "wav head",
        "hls",
        "concat",
        "mkv head",
        "ogg head",
        "flac head",
        "noise",
    ],
)
def test_what_is_no_recording_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "recording.mp3"
    path.write_bytes(content)
    assert refusal(path).startswith(("The file can't be read", "The file has"))


def test_a_file_that_was_cut_short_is_refused_or_told_of(tmp_path: Path) -> None:
    for ending in ("mp4", "flac", "mp3", "ogg"):
        path = sounds.make(tmp_path / f"whole.{ending}", 20, sounds.talk, rate=48_000)
        cut = tmp_path / f"cut.{ending}"
        cut.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        found = outcome(cut)
        if isinstance(found, str):
            assert "can't be read" in found
        else:
            assert found.seconds < 15
            check_whole(found)
            assert ending == "ogg" or "may be damaged or cut short" in (found.warning or ""), ending


def test_a_damaged_middle_is_passed_over_and_told_of(tmp_path: Path) -> None:
    path = sounds.make(tmp_path / "talk.mp3", 20, sounds.talk, rate=44_100)
    raw = bytearray(path.read_bytes())
    raw[5_000:6_000] = b"x" * 1_000
    path.write_bytes(raw)
    found = decoded(path)
    assert found.seconds > 19
    assert found.warning == "Parts of the file are damaged and could not be read."


def test_an_absurd_length_is_not_believed(tmp_path: Path) -> None:
    path = sounds.make(tmp_path / "talk.wav", 3, sounds.talk)
    raw = bytearray(path.read_bytes())
    at = raw.index(b"data")
    raw[at + 4 : at + 8] = raw[4:8] = struct.pack("<I", 0xFFFF_FFF0)
    path.write_bytes(raw)
    assert decoded(path).seconds == 3


async def test_an_hour_of_silence_takes_little_memory_and_time(tmp_path: Path, sandbox: Sandbox) -> None:
    path = tmp_path / "hour.flac"
    sounds.make_silence(path, 3600)
    with pytest.raises(Refused, match=r"all of its 1 h 0 min are silent"):
        await sandbox.run(decode, _order(path), seconds=60, memory=MEMORY)
    assert _resident(sandbox) < RESIDENT


@pytest.mark.parametrize("ending", ["wav", "mp3", "mp4", "ogg", "flac", "webm"])
async def test_a_hundred_mutated_files_end_in_words_and_leave_memory_flat(
    tmp_path: Path, sandbox: Sandbox, ending: str
) -> None:
    original = sounds.make(tmp_path / f"talk.{ending}", 2, sounds.talk, rate=48_000).read_bytes()
    chance = random.Random(ending)
    for number in range(100):
        path = tmp_path / f"{number}.{ending}"
        path.write_bytes(_mutated(original, chance))
        try:
            check_whole(await sandbox.run(decode, _order(path), seconds=30, memory=MEMORY))
        except Refused:
            continue
        except SandboxFailed as failure:
            if failure.kind == "error":  # an exception that nobody thought of
                raise
        path.unlink()
    assert _resident(sandbox) < RESIDENT


def _order(path: Path) -> Decoding:
    folder = path.parent / f"{path.name}.pieces"
    folder.mkdir()
    return Decoding(str(path), str(folder), 300, 14_400, "Too long.")


def _resident(sandbox: Sandbox) -> int:
    """Bytes that the children hold."""
    return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 for pid in sandbox.pids)


def _mutated(original: bytes, chance: random.Random) -> bytes:
    raw = bytearray(original)
    for _ in range(chance.choice([1, 3, 20])):
        match chance.randrange(5):
            case 0:
                raw[chance.randrange(len(raw))] = chance.randrange(256)
            case 1:  # headers are where the lengths and the counts are
                raw[chance.randrange(min(100, len(raw)))] = chance.choice([0, 0x7F, 0x80, 0xFF])
            case 2:
                del raw[chance.randrange(len(raw)) :]
            case 3:
                at = chance.randrange(len(raw))
                raw[at:at] = raw[: chance.randrange(2000)]
            case _:
                at = chance.randrange(len(raw))
                raw[at : at + chance.randrange(500)] = chance.randbytes(chance.randrange(500))
        if len(raw) < 4:
            return bytes(raw)
    return bytes(raw)
