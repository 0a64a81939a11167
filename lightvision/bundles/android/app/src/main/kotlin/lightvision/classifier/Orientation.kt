package lightvision.classifier

/** Which way up a picture is meant to be, by its EXIF tag: rows of it, read out of what is stored. */
class Orientation(tag: Int, private val storedWidth: Int, private val storedHeight: Int) {
    private val sideways = tag in 5..8
    private val fromRight = tag in setOf(2, 3, 7, 8)
    private val fromBelow = tag in setOf(3, 4, 6, 7)

    val width = if (sideways) storedHeight else storedWidth
    val height = if (sideways) storedWidth else storedHeight

    /** `read` gives a rectangle of what is stored: left, top, width, height. */
    fun rows(top: Int, count: Int, read: (Int, Int, Int, Int) -> IntArray): IntArray {
        val left = if (!sideways) 0 else if (fromRight) storedWidth - top - count else top
        val above = if (sideways) 0 else if (fromBelow) storedHeight - top - count else top
        val stride = if (sideways) count else storedWidth
        val block = read(left, above, stride, if (sideways) storedHeight else count)
        val rows = IntArray(width * count)
        for (y in 0 until count) {
            for (x in 0 until width) {
                val across = if (sideways) top + y else x
                val down = if (sideways) x else top + y
                val column = if (fromRight) storedWidth - 1 - across else across
                val row = if (fromBelow) storedHeight - 1 - down else down
                rows[y * width + x] = block[(row - above) * stride + column - left]
            }
        }
        return rows
    }
}
