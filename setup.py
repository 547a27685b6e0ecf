"""The compiled part: one extension module per instruction set, all of the same source.

Everything else about the package is in pyproject.toml.
"""

import contextlib
import os
import platform
import sys
import tempfile
from pathlib import Path

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

if sys.platform == "win32":
    sys.exit("csoftmax builds with GCC or Clang on Linux and macOS; on Windows use WSL.")

X86_64_BUILDS = ["x86_64_v2", "x86_64_v3", "x86_64_v4"]
BUILDS = X86_64_BUILDS if platform.machine() == "x86_64" else ["generic"]

# The kernels rely on NaN, infinities and rounding as written, so nothing of the -ffast-math family.
# Contraction is off: the source says where a product and a sum are fused. What Cython calls inline
# has to be: the kernels' flags are constants only where the calls are gone.
GCC = [
    "-O3", "-g0", "-fno-wrapv", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=off",
    "-DCYTHON_INLINE=inline __attribute__((always_inline, unused))",
]
FLAGS = {
    "x86_64_v2": [*GCC, "-march=x86-64-v2"],
    "x86_64_v3": [*GCC, "-march=x86-64-v3"],
    "x86_64_v4": [*GCC, "-march=x86-64-v4", "-mprefer-vector-width=512"],
    "generic": GCC,
    "cpu": ["-Os", "-g0"],
}
# Of GCC alone. No library calls in place of short loops: they would send vectors through memory.
# Instruction scheduling before registers are assigned interleaves the long chains of operations of
# independent exponentials: a twentieth of the time, a fifth with a temperature. No copies of
# functions for constant arguments: of the largest it made two, alike but for a comparison. Loops
# over lanes are not unrolled before they are made of vectors, which left many of them scalar:
# float64 rows take half to four fifths of the time.
# Of both, where the system has it: a thread whose stack is too small ends, and writes nothing into
# what lies behind its guard page.
# Of Clang alone. The same limit to unrolling: logsumexp of long float64 rows takes a quarter to two
# fifths of the time. Vectors as wide as floats allow where a loop has doubles too: two thirds.
OPTIONAL_FLAGS = [
    "-fno-tree-loop-distribute-patterns", "-fschedule-insns", "-fsched-pressure",
    "-fno-ipa-cp-clone", "--param=max-completely-peel-times=4", "-fstack-clash-protection",
    "-mllvm -unroll-full-max-count=4", "-mllvm -vectorizer-maximize-bandwidth",
]


@contextlib.contextmanager
def quiet():
    """A compiler's complaints about flags of another would look like errors."""
    stderr = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


class BuildKernels(build_ext):
    """Adds the flags that this compiler understands."""

    def run(self):
        """Leave the modules in the source tree too, where Python finds them if started there."""
        super().run()
        if not self.inplace:
            self.copy_extensions_to_source()

    def build_extensions(self):
        openmp = ["-fopenmp"]
        uses_openmp = "#include <omp.h>\nint main(void) { return omp_get_max_threads() < 1; }"
        if os.environ.get("CSOFTMAX_OPENMP") == "0":
            openmp = []
        elif not self.compiles(uses_openmp, openmp, link=True):
            print("No OpenMP: its limits on threads will not hold for csoftmax.", file=sys.stderr)
            openmp = []
        optional = [
            part for flag in OPTIONAL_FLAGS
            if self.compiles("int main(void) { return 0; }", ["-Werror", *flag.split()])
            for part in flag.split()
        ]
        for extension in self.extensions:
            name = extension.name.rpartition(".")[2]
            extension.extra_compile_args = FLAGS[name]
            if name != "cpu":
                extension.extra_compile_args = [*extension.extra_compile_args, *openmp, *optional]
                extension.extra_link_args = openmp
        self.parallel = self.parallel or True    # at once, as many as there are CPUs
        super().build_extensions()

    def compiles(self, program, flags, link=False):
        with tempfile.TemporaryDirectory() as folder, quiet():
            source = Path(folder, "try.c")
            source.write_text(program)
            try:
                objects = self.compiler.compile(
                    [str(source)], output_dir=folder, extra_postargs=flags
                )
                if link:
                    self.compiler.link_executable(
                        objects, "try", output_dir=folder, extra_postargs=flags
                    )
            except Exception:
                return False
        return True


extensions = [
    Extension(
        f"csoftmax.kernels.{name}",
        [f"csoftmax/kernels/{name}.pyx"],
        include_dirs=[numpy.get_include()],
        define_macros=[("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION")],
        depends=[str(path) for path in Path("csoftmax/kernels").glob("*.[ph]*")],
    )
    for name in ["cpu", *BUILDS]
]

setup(
    cmdclass={"build_ext": BuildKernels},
    ext_modules=cythonize(
        extensions,
        build_dir="build/cython",
        compiler_directives={
            "boundscheck": False, "wraparound": False, "cdivision": True, "initializedcheck": False,
            # Nothing that changes is shared but what threads.h and memory.h keep, which is read
            # and written atomically.
            "freethreading_compatible": True,
        },
    ),
)
