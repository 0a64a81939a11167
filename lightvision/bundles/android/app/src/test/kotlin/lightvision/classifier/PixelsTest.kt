package lightvision.classifier

import java.util.Base64
import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Test

/** Pillow's own pixels, as pixels.txt holds them: what is done, sizes, what goes in as RGBA, what comes out. */
class PixelsTest {
    private class Case(line: String) {
        private val parts = line.split(" ")
        val kind = parts[0]
        val width = parts[1].toInt()
        val height = parts[2].toInt()
        val given = parts[3].toInt() // the size of a square, or an EXIF tag
        val pixels = bytes(4).toList().chunked(4) { (red, green, blue, alpha) ->
            (alpha.toInt() and 255 shl 24) or (red.toInt() and 255 shl 16) or (green.toInt() and 255 shl 8) or
                (blue.toInt() and 255)
        }.toIntArray()
        val expected = bytes(5)

        private fun bytes(part: Int) = Base64.getDecoder().decode(parts[part])
    }

    private val cases = checkNotNull(javaClass.getResource("/pixels.txt")).readText().trim().lines().map { Case(it) }

    @Test
    fun picturesAreResizedAsByPillowToTheLastBit() {
        for (fit in Fit.entries) {
            val some = cases.filter { it.kind == fit.name }
            assertTrue(some.isNotEmpty())
            for (case in some) {
                val resampler = Resampler(case.width, case.height, case.given, fit)
                for (row in resampler.first until resampler.last) {
                    resampler.take(case.pixels.copyOfRange(row * case.width, (row + 1) * case.width), 1)
                }
                assertArrayEquals("$fit ${case.width}x${case.height}", case.expected, resampler.square())
            }
        }
    }

    @Test
    fun picturesAreTurnedAsByPillow() {
        val turned = cases.filter { it.kind == "TURN" }
        assertEquals((1..8).toList(), turned.map { it.given })
        for (case in turned) {
            val upright = Orientation(case.given, case.width, case.height)
            var rows = intArrayOf()
            for (top in 0 until upright.height step 2) {
                rows += upright.rows(top, minOf(2, upright.height - top)) { left, above, width, height ->
                    IntArray(width * height) { case.pixels[(above + it / width) * case.width + left + it % width] }
                }
            }
            val found = rows.flatMap { listOf(it shr 16, it shr 8, it) }.map { it.toByte() }.toByteArray()
            assertArrayEquals("tag ${case.given}", case.expected, found)
        }
    }
}
