package lightvision.classifier

import kotlin.math.abs
import kotlin.math.floor
import kotlin.math.max
import kotlin.math.min

// Pillow's antialiased bicubic resize and its three ways to make a picture fit, bit for bit.
//
// What the network learnt from was resized by Pillow: separable, wide enough to average all that shrinks into a pixel,
// in integers with weights of 22 bits, rounded to pixels between the two passes. Android scales otherwise, and other
// pixels are other answers. Nothing here needs Android, so that it is tested on any machine.

private const val BITS = 22
private const val HALF = 1 shl (BITS - 1) // what a sum begins with, so that cutting its bits off rounds it
private const val SUPPORT = 2.0 // of the kernel below, in pixels of the larger grid

private fun cubic(distance: Double): Double {
    val x = abs(distance)
    return when {
        x < 1 -> (1.5 * x - 2.5) * x * x + 1
        x < 2 -> (((x - 5) * x + 8) * x - 4) * -0.5
        else -> 0.0
    }
}

/** For a pixel that comes out: the first that goes in, and integer weights of it and those after it. */
private class Weights(val first: Int, val values: IntArray)

private fun weighing(pixels: Int, from: Float, to: Float, count: Int): List<Weights> {
    val scale = (to - from).toDouble() / count
    val stretch = max(scale, 1.0)
    val support = SUPPORT * stretch
    return List(count) { index ->
        val centre = from + (index + 0.5) * scale
        val first = max((centre - support + 0.5).toInt(), 0)
        val last = min((centre + support + 0.5).toInt(), pixels)
        val weights = DoubleArray(last - first) { cubic((it + first - centre + 0.5) * (1 / stretch)) }
        var sum = 0.0
        for (weight in weights) sum += weight
        Weights(first, IntArray(weights.size) { fixed(if (sum == 0.0) weights[it] else weights[it] / sum) })
    }
}

private fun fixed(weight: Double): Int = (weight * (1 shl BITS) + (if (weight < 0) -0.5 else 0.5)).toInt()

private fun clipped(sum: Int): Byte = min(max(sum shr BITS, 0), 255).toByte()

/** Ties go to the even one, as Python rounds. */
private fun rounded(value: Double): Int {
    val below = floor(value)
    val even = if (below % 2 == 0.0) below else below + 1
    return (if (value - below == 0.5) even else floor(value + 0.5)).toInt()
}

/** The part of a picture that is taken, and where in the square it comes to lie. */
class Place(val box: FloatArray, val width: Int, val height: Int, val left: Int = 0, val top: Int = 0)

enum class Fit {
    CROP {
        override fun place(width: Int, height: Int, size: Int): Place {
            val side = min(width, height)
            val left = (width - side) / 2f
            val top = (height - side) / 2f
            return Place(floatArrayOf(left, top, left + side, top + side), size, size)
        }
    },
    PAD {
        override fun place(width: Int, height: Int, size: Int): Place {
            val across = if (width < height) rounded(width.toDouble() / height * size) else size
            val down = if (width > height) rounded(height.toDouble() / width * size) else size
            return Place(all(width, height), across, down, rounded((size - across) * 0.5), rounded((size - down) * 0.5))
        }
    },
    STRETCH {
        override fun place(width: Int, height: Int, size: Int) = Place(all(width, height), size, size)
    };

    abstract fun place(width: Int, height: Int, size: Int): Place

    protected fun all(width: Int, height: Int) = floatArrayOf(0f, 0f, width.toFloat(), height.toFloat())
}

/** Nothing would be left of the shorter side. */
class TooThin : Exception()

/**
 * Takes the rows of a picture from above to below, a few at a time, and gives RGB of size x size. A large picture is
 * therefore never held a second time, only sums of its rows.
 */
class Resampler(private val width: Int, height: Int, private val size: Int, fit: Fit) {
    private val place = fit.place(width, height, size).also { if (it.width < 1 || it.height < 1) throw TooThin() }
    private val across = weighing(width, place.box[0], place.box[2], place.width)
    private val down = weighing(height, place.box[1], place.box[3], place.height)

    // as Pillow chooses since its version 13
    private val downFirst = place.height < height && height - place.height > 2 * (width - place.width)

    /** Rows before it, and from `last` on, count for nothing. */
    val first = down.first().first
    val last = down.last().first + down.last().values.size

    private var row = first
    private val line = 3 * (if (downFirst) width else place.width)
    private val sums = IntArray(place.height * line) { HALF }

    /** `count` whole rows, each pixel as Android has it: alpha, red, green and blue in one number. */
    fun take(pixels: IntArray, count: Int) {
        for (at in 0 until count) {
            val colours = colours(pixels, at * width)
            add(if (downFirst) colours else narrowed(colours))
            row++
        }
    }

    private fun add(values: ByteArray) {
        down.forEachIndexed { index, weights ->
            val at = row - weights.first
            if (at < 0 || at >= weights.values.size) return@forEachIndexed
            val weight = weights.values[at]
            val start = index * line
            for (column in values.indices) sums[start + column] += (values[column].toInt() and 255) * weight
        }
    }

    fun square(): ByteArray {
        val square = ByteArray(size * size * 3)
        for (down in 0 until place.height) {
            val values = ByteArray(line) { clipped(sums[down * line + it]) }
            val finished = if (downFirst) narrowed(values) else values
            finished.copyInto(square, ((place.top + down) * size + place.left) * 3)
        }
        return square
    }

    private fun colours(pixels: IntArray, start: Int): ByteArray {
        val colours = ByteArray(width * 3)
        for (column in 0 until width) {
            val pixel = pixels[start + column]
            val alpha = pixel ushr 24
            colours[column * 3] = onWhite(pixel shr 16 and 255, alpha)
            colours[column * 3 + 1] = onWhite(pixel shr 8 and 255, alpha)
            colours[column * 3 + 2] = onWhite(pixel and 255, alpha)
        }
        return colours
    }

    private fun narrowed(values: ByteArray): ByteArray {
        val result = ByteArray(place.width * 3)
        across.forEachIndexed { column, weights ->
            var red = HALF
            var green = HALF
            var blue = HALF
            var from = weights.first * 3
            for (weight in weights.values) {
                red += (values[from].toInt() and 255) * weight
                green += (values[from + 1].toInt() and 255) * weight
                blue += (values[from + 2].toInt() and 255) * weight
                from += 3
            }
            result[column * 3] = clipped(red)
            result[column * 3 + 1] = clipped(green)
            result[column * 3 + 2] = clipped(blue)
        }
        return result
    }
}

/** Of a colour that covers as much as `alpha` says, with Pillow's seven bits more than a pixel has. */
private fun onWhite(colour: Int, alpha: Int): Byte {
    val sum = (colour * alpha + 255 * (255 - alpha) + 128) shl 7
    return (((sum shr 8) + sum) shr 15).toByte()
}
