"""File systems of boards, composed of what NVIDIA's boards are known to have.

None was recorded on a board of ours: names, tables and formats are those of published files, logs
and kernel sources.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

Files = dict[str, str]
ORIN_LABELS = ("VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC")
AGX_LABELS = ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0")
L4T_62 = "# R36 (release), REVISION: 5.0, GCID: 1, BOARD: generic, EABI: aarch64\n"
L4T_71 = "# R38 (release), REVISION: 4.0, GCID: 1, BOARD: generic, EABI: aarch64\n"
HWMON, THERMAL = "sys/class/hwmon", "sys/class/thermal"


@dataclass(frozen=True)
class Mode:
    """A row of nvpmodel.conf: GPU and memory in MHz (0: no limit), CPU cores, TPC mask."""

    name: str
    gpu: int
    mask: int
    emc: int = 0
    cores: int = 6
    cpu: int = 1728


@dataclass(frozen=True)
class Kit:
    """A board as it is sold, in the state in which nothing is wrong with it."""

    name: str
    module_id: str
    model: str
    modes: Sequence[Mode]
    mode: int
    """Its id."""
    memory_mib: int
    is_super: bool = False
    soc: str = "tegra234"
    labels: Sequence[str] = ORIN_LABELS
    l4t: str = L4T_62
    tensorrt: str = "libnvinfer10:10.3.0.30-1+cuda12.5"
    cuda: str = "12.6.68"
    gpu: str = "17000000.gpu"
    zones: Mapping[str, int] = field(
        default_factory=lambda: {"cpu": 48906, "gpu": 49593, "soc0": 48093, "tj": 49593}
    )


NANO8_MODES = (
    Mode("15W", 612, 240, 2133, cpu=1498),
    Mode("25W", 918, 240, 3199, cpu=1344),
    Mode("MAXN_SUPER", -1, 240),
    Mode("7W", 408, 252, 2133, cores=4, cpu=960),
)
NX_MODES = (
    Mode("MAXN_SUPER", -1, 240, cores=8),
    Mode("10W", 612, 252, 2133, cores=4, cpu=1190),
    Mode("15W", 612, 252, 3199, cores=4, cpu=1651),
    Mode("25W", 408, 240, 3199, cores=8, cpu=1498),
    Mode("40W", 1173, 240, 3199, cores=8, cpu=1498),
)
AGX_MODES = (
    Mode("MAXN", -1, 0, cores=12),
    Mode("15W", 408, 248, 2133, cores=4, cpu=1114),
    Mode("30W", 612, 240, 3199, cores=8),
    Mode("50W", 816, 0, 3199, cores=12, cpu=1498),
)
KITS = {
    kit.name: kit
    for kit in (
        Kit(
            "Orin Nano 8GB",
            "p3767-0005",
            "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super",
            NANO8_MODES,
            1,
            7607,
            is_super=True,
        ),
        Kit(
            "Orin Nano 4GB",
            "p3767-0004",
            "NVIDIA Jetson Orin Nano 4GB Super",
            (
                Mode("10W", 612, 252, 2133),
                Mode("25W", 1020, 252, 3199),
                Mode("MAXN_SUPER", -1, 252),
            ),
            1,
            3420,
            is_super=True,
        ),
        Kit("Orin NX 16GB", "p3767-0000", "NVIDIA Jetson Orin NX", NX_MODES, 4, 15656, True),
        Kit("Orin NX 8GB", "p3767-0001", "NVIDIA Jetson Orin NX 8GB", NX_MODES, 4, 7607, True),
        Kit(
            "AGX Orin 32GB",
            "p3701-0004",
            "NVIDIA Jetson AGX Orin 32GB",
            (
                Mode("MAXN", -1, 128, cores=8),
                Mode("15W", 408, 248, 2133, cores=4, cpu=1114),
                Mode("30W", 612, 240, 3199, cores=8),
                Mode("40W", 816, 128, 3199, cores=8, cpu=1498),
            ),
            3,
            30536,
            labels=AGX_LABELS,
        ),
        Kit(
            "AGX Orin 64GB",
            "p3701-0005",
            "NVIDIA Jetson AGX Orin Developer Kit",
            AGX_MODES,
            0,
            62800,
            labels=AGX_LABELS,
        ),
        Kit(
            "Thor T5000",
            "p3834-0008",
            "NVIDIA Jetson AGX Thor Developer Kit",
            (Mode("MAXN", -1, 0, cores=14), Mode("120W", 0, 0, cores=14)),
            0,
            125772,
            soc="tegra264",
            labels=(),
            l4t=L4T_71,
            tensorrt="libnvinfer10:10.13.3.9-1+cuda13.0",
            cuda="13.0.2",
            gpu="gpu-gpc-0",
            zones={"cpu": 38000, "gpu": 38500, "soc012": 37000, "tj": 38875},
        ),
    )
}


def nvpmodel(modes: Sequence[Mode], default: int) -> str:
    """Its .conf file."""
    lines = [
        "# < POWER_MODEL ID=id_num NAME=mode_name >",
        "< PARAM TYPE=FILE NAME=CPU_ONLINE >",
        "CORE_0 /sys/devices/system/cpu/cpu0/online",
        "< PARAM TYPE=CLOCK NAME=EMC >",
        "MAX_FREQ /sys/kernel/nvpmodel_clk_cap/emc",
    ]
    for number, mode in enumerate(modes):
        lines += [
            "",
            f"< POWER_MODEL ID={number} NAME={mode.name} >",
            *(f"CPU_ONLINE CORE_{core} {int(core < mode.cores)}" for core in range(12)),
            f"TPC_POWER_GATING TPC_PG_MASK {mode.mask}",
            "GPU_POWER_CONTROL_ENABLE GPU_PWR_CNTL_EN on",
            f"CPU_A78_0 MAX_FREQ {mode.cpu * 1000}",
            "GPU MIN_FREQ 0",
            f"GPU MAX_FREQ {mode.gpu * 10**6 if mode.gpu > 0 else mode.gpu}",
            f"EMC MAX_FREQ {mode.emc * 10**6}",
        ]
    return "\n".join([*lines, f"< PM_CONFIG DEFAULT={default} >", ""])


def files_of(kit: Kit, **changes: str | None) -> Files:
    """Everything that is read of a board; changes: a file's text, None leaves it out."""
    mode = kit.modes[kit.mode]
    package, _, version = kit.tensorrt.partition(":")
    compatible = f"nvidia,p3768-0000+{kit.module_id}{'-super' if kit.is_super else ''}"
    files = {
        "proc/device-tree/model": f"{kit.model}\0",
        "proc/device-tree/compatible": f"{compatible}\0nvidia,{kit.soc}\0",
        "proc/cpuinfo": "processor\t: 0\nCPU part\t: 0xd42\n",
        "proc/meminfo": meminfo(kit.memory_mib),
        "proc/buddyinfo": "Node 0, zone   Normal     12      9      4      2      1      0      0"
        "      0      0      0     61\n",
        "etc/nv_tegra_release": kit.l4t,
        "etc/os-release": 'PRETTY_NAME="Ubuntu"\n',
        "etc/group": "root:x:0:\nvideo:x:44:operator\nrender:x:104:operator\n",
        "etc/nvpmodel.conf": nvpmodel(kit.modes, kit.mode),
        "var/lib/nvpmodel/status": f"pmode:{kit.mode:04} fmode:quiet\n",
        "var/lib/dpkg/status": f"Package: {package}\nStatus: install ok installed\n"
        f"Version: {version}\n\nPackage: bash\nStatus: install ok installed\nVersion: 5\n",
        "usr/local/cuda/version.json": f'{{"cuda": {{"version": "{kit.cuda}"}}}}',
        f"sys/class/devfreq/{kit.gpu}/cur_freq": f"{306 * 10**6}\n",
        f"sys/class/devfreq/{kit.gpu}/max_freq": f"{(mode.gpu if mode.gpu > 0 else 1300) * 10**6}",
        "sys/kernel/nvpmodel_clk_cap/emc": f"{mode.emc * 10**6}\n",
        "sys/devices/platform/gpu.0/tpc_pg_mask": f"{mode.mask}\n",
        "sys/devices/system/cpu/online": f"0-{mode.cores - 1}\n",
        "sys/devices/system/cpu/cpufreq/policy0/scaling_max_freq": f"{mode.cpu * 1000}\n",
        f"{THERMAL}/cooling_device0/type": "pwm-fan\n",
        f"{THERMAL}/cooling_device0/cur_state": "3\n",
        f"{THERMAL}/cooling_device1/type": "gpu-throttle-alert\n",
        f"{THERMAL}/cooling_device1/cur_state": "0\n",
        f"{HWMON}/hwmon3/name": "soctherm_oc\n",
        f"{HWMON}/hwmon3/oc1_event_cnt": "0\n",
        f"{HWMON}/hwmon3/oc3_event_cnt": "2\n",
    }
    for number, (zone, degrees) in enumerate(kit.zones.items()):
        files[f"{THERMAL}/thermal_zone{number}/type"] = f"{zone}-thermal\n"
        files[f"{THERMAL}/thermal_zone{number}/temp"] = f"{degrees}\n"
    files |= ina3221(kit.labels) if kit.labels else ina238(19_780_000)
    files |= {name: text for name, text in changes.items() if text is not None}
    return {name: text for name, text in files.items() if changes.get(name, "") is not None}


def ina3221(labels: Sequence[str], milliamperes: Sequence[int] = (1200, 334, 462)) -> Files:
    """Three channels at 5 V, and a sum that is no channel."""
    files = {f"{HWMON}/hwmon1/name": "ina3221\n"}
    files[f"{HWMON}/hwmon1/in7_label"] = "sum of shunt voltages\n"
    for number, label in enumerate(labels, start=1):
        files[f"{HWMON}/hwmon1/in{number}_label"] = f"{label}\n"
        files[f"{HWMON}/hwmon1/in{number}_input"] = "5000\n"
        files[f"{HWMON}/hwmon1/curr{number}_input"] = f"{milliamperes[number - 1]}\n"
        files[f"{HWMON}/hwmon1/curr{number}_crit_alarm"] = "0\n"
    return files


def ina238(microwatts: int) -> Files:
    return {
        f"{HWMON}/hwmon1/name": "ina238\n",
        f"{HWMON}/hwmon1/power1_label": "VIN\n",
        f"{HWMON}/hwmon1/power1_input": f"{microwatts}\n",
    }


def meminfo(total_mib: int, **mib: int) -> str:
    """Mebibytes by field of /proc/meminfo."""
    usual = {
        "MemTotal": total_mib,
        "MemAvailable": total_mib * 9 // 10,
        "SwapTotal": 3800,
        "SwapFree": 3800,
        "CmaTotal": 950,
        "CmaFree": 900,
    }
    return "".join(f"{name}: {size * 1024} kB\n" for name, size in (usual | mib).items() if size)


def laid_out(root: Path, files: Files) -> Path:
    """The files under `root`."""
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return root
